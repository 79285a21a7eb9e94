"""Your own images: files in folders `SPLIT/CLASS/FILE`.

    flowers/train/rose/0001.jpg   flowers/validation/...   flowers/test/...

Without a folder `validation` (or `val`) a part of `train` is held out.
"""

from pathlib import Path

import numpy as np

from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import images, splits

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
Files = tuple[list[Path], np.ndarray]  # and their labels


def make(path: str, validation: float = 0.15, seed: int = 0) -> Task:
    """The classes are the folders in `train`, in alphabetical order.

    Files that are no images by their suffix, and hidden ones, are passed over.

    Args:
      path: the folder that holds `train` and `test`.
      validation: fraction cut from training, stratified, where there is no such
        folder.
      seed: of the cut.

    Raises:
      ValueError: a folder is missing or empty, or training lacks one of its classes.
    """
    root = Path(path).expanduser()
    classes = _folders(root / "train")
    train = _files(root / "train", classes)
    test = _files(root / "test", classes)
    given = [root / name for name in ("validation", "val") if (root / name).is_dir()]
    if len(given) > 1:
        raise ValueError(f"{root} has both validation and val; one is enough")
    if given:
        held_out = _files(given[0], classes)
    else:
        kept, cut = splits.stratified(train[1], [1 - validation, validation], seed)
        train, held_out = _pick(train, kept), _pick(train, cut)
    return Task(
        "folder", tuple(classes), _split(*train), _split(*held_out), _split(*test)
    )


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        inside = folder.parent
        there = sorted(p.name for p in inside.glob("*/")) if inside.is_dir() else []
        raise ValueError(f"no folder {folder}; there are {', '.join(there) or 'none'}")
    names = sorted(p.name for p in folder.glob("[!.]*") if p.is_dir())
    if not names:
        raise ValueError(f"{folder} has no class folders; the layout is CLASS/FILE")
    return names


def _files(folder: Path, classes: list[str]) -> Files:
    files, labels = [], []
    for name in _folders(folder):
        if name not in classes:
            what = f"class {name!r} of {folder} is not in training"
            raise ValueError(f"{what}; there are {', '.join(classes)}")
        found = sorted(p for p in (folder / name).rglob("[!.]*") if _is_image(p))
        if not found:
            raise ValueError(f"{folder / name} has no images; {_known()}")
        files += found
        labels += [classes.index(name)] * len(found)
    return files, np.array(labels, np.int32)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _known() -> str:
    return f"their names end in {', '.join(sorted(SUFFIXES))}"


def _pick(files: Files, indices: np.ndarray) -> Files:
    return [files[0][i] for i in indices], files[1][indices]


def _split(files: list[Path], labels: np.ndarray) -> Split:
    return Split(lambda index: {"image": images.read(files[index])}, labels)
