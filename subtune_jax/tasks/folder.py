"""Your own images: files in folders `SPLIT/CLASS/FILE`.

    flowers/train/rose/0001.jpg   flowers/validation/...   flowers/test/...

Without a folder `validation` (or `val`) a part of `train` is held out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Split, Task
from subtune_jax.data import folders, images, splits

TINY: dict[str, Any] = {}  # beside what `write_sample` returns
Files = tuple[list[Path], np.ndarray]  # and their labels


def make(path: str, validation: float = 0.15, seed: int = 0) -> Task:
    """The classes are the folders in `train`, in alphabetical order.

    Files that are no images by their suffix, and hidden ones, are passed over.

    Args:
      path: the folder that holds `train` and `test`.
      validation: fraction in (0, 1) cut from training, stratified, where there is no
        such folder.
      seed: of the cut.

    Raises:
      ValueError: a folder is missing or empty, or training lacks one of its classes.
    """
    root = Path(path).expanduser()
    classes = _class_names(root / "train")
    train = _files(root / "train", classes)
    test = _files(root / "test", classes)
    folder = folders.validation(root)
    if folder is not None:
        held_out = _files(folder, classes)
    else:
        kept, cut = splits.stratified(train[1], [1 - validation, validation], seed)
        train, held_out = _pick(train, kept), _pick(train, cut)
    return Task(
        "folder", tuple(classes), _split(*train), _split(*held_out), _split(*test)
    )


def _class_names(folder: Path) -> list[str]:
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
    for name in _class_names(folder):
        if name not in classes:
            what = f"class {name!r} of {folder} is not in training"
            raise ValueError(f"{what}; there are {', '.join(classes)}")
        inside = sorted((folder / name).rglob("[!.]*"))
        inside = [file for file in inside if folders.is_image(file)]
        folders.check_images(folder / name, inside)
        files += inside
        labels += [classes.index(name)] * len(inside)
    return files, np.array(labels, np.int32)


def _pick(files: Files, indices: np.ndarray) -> Files:
    return [files[0][i] for i in indices], files[1][indices]


def _split(files: list[Path], labels: np.ndarray) -> Split:
    return Split(lambda index: {"image": images.read(files[index])}, labels)


def write_sample(folder: Path) -> dict[str, Any]:
    """Of two kinds of flowers, 12 images of noise for training and 4 for test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("rose", "tulip"):
            for number in range(count):
                pixels = rng.integers(0, 256, (5, 4, 3), np.uint8)
                images.write(folder / part / name / f"{number}.png", pixels)
    return {"path": str(folder)}
