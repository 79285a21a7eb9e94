"""Your own images and masks: files `SPLIT/images/STEM.*` and `SPLIT/masks/STEM.*`.

    kvasir/train/images/0001.jpg   kvasir/train/masks/0001.png   kvasir/test/...

Without a folder `validation` (or `val`) a part of `train` is held out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import dense, images, splits
from subtune_jax.tasks.folder import SUFFIXES


class Pair(NamedTuple):
    """The two files of an example."""

    image: Path
    mask: Path


class Code(NamedTuple):
    """What a mask's values mean; see `make`."""

    values: Sequence[int]
    ignored: Sequence[int]
    threshold: int


def make(
    path: str,
    classes: Sequence[str] = ("background", "object"),
    values: Sequence[int] = (),
    ignored: Sequence[int] = (),
    threshold: int = 0,
    validation: float = 0.15,
    seed: int = 0,
) -> Task:
    """A class for every pixel, by the values of the masks.

    Of a mask with a palette these are the numbers of its colours. Masks in black and
    white, such as those of Kvasir-SEG, want `threshold=128`.

    Args:
      path: the folder that holds `train` and `test`.
      classes: their names, the background first: mDice leaves it out.
      values: of the masks that stand for the classes, in their order; none for 0, 1
        and so on.
      ignored: values of pixels that do not count, as 255 does if it is no class.
      threshold: the least value of the second of two classes, for masks whose values
        are brightness; 0 for classes.
      validation: fraction cut from training where there is no such folder.
      seed: of the cut.

    Raises:
      ValueError: a folder or a mask is missing, or the values do not fit the classes;
        when it is read, a mask is not as large as its image, or holds another value.
    """
    code = _code(classes, values, ignored, threshold)
    root = Path(path).expanduser()
    train, test = _pairs(root / "train"), _pairs(root / "test")
    given = [root / name for name in ("validation", "val") if (root / name).is_dir()]
    if len(given) > 1:
        raise ValueError(f"{root} has both validation and val; one is enough")
    if given:
        parts = train, _pairs(given[0]), test
    else:
        fractions = [1 - validation, validation]
        cut = splits.stratified(np.zeros(len(train)), fractions, seed)
        kept, held_out = ([train[i] for i in piece] for piece in cut)
        parts = kept, held_out, test
    return dense.task("folder_masks", classes, *(_split(part, code) for part in parts))


def _code(
    classes: Sequence[str],
    values: Sequence[int],
    ignored: Sequence[int],
    threshold: int,
) -> Code:
    if threshold and (len(classes) != 2 or values or ignored):
        given = f"{len(classes)} classes, values={values}, ignored={ignored}"
        what = f"folder_masks threshold={threshold} with {given}"
        raise ValueError(f"{what}; a threshold tells two classes apart, by itself")
    known = dense.values("folder_masks", classes, values, ignored)
    return Code(known, ignored, threshold)


def _pairs(folder: Path) -> list[Pair]:
    found = [_files(folder / name) for name in ("images", "masks")]
    for files, others, what in ((*found, "mask"), (*found[::-1], "image")):
        for stem, file in files.items():
            if stem not in others:
                raise ValueError(f"{file} has no {what} of its name beside it")
    return [Pair(file, found[1][stem]) for stem, file in found[0].items()]


def _files(folder: Path) -> dict[str, Path]:
    """Stem -> file, in alphabetical order."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; the layout is SPLIT/images, SPLIT/masks")
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("[!.]*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            if file.stem in found:
                raise ValueError(f"{found[file.stem]} and {file} have one name")
            found[file.stem] = file
    if not found:
        known = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{folder} has no images; their names end in {known}")
    return found


def _split(pairs: Sequence[Pair], code: Code) -> Split:
    return Split(
        lambda index: {"image": images.read(pairs[index].image)},
        np.zeros(len(pairs), np.int32),
        lambda index: _mask(pairs[index], code),
    )


def _mask(pair: Pair, code: Code) -> np.ndarray:
    stored = images.read_mask(pair.mask)
    size = images.size(pair.image)
    if stored.shape != size:
        here, there = (f"{wide} x {high}" for high, wide in (stored.shape, size))
        raise ValueError(f"{pair.mask} is {here} pixels; its image is {there}")
    if code.threshold:
        return (stored >= code.threshold).astype(np.uint8)
    return dense.recoded(stored, str(pair.mask), code.values, code.ignored)
