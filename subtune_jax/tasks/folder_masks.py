"""Your own images and masks: files `SPLIT/images/STEM.*` and `SPLIT/masks/STEM.*`.

    kvasir/train/images/0001.jpg   kvasir/train/masks/0001.png   kvasir/test/...

Without a folder `validation` (or `val`) a part of `train` is held out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import Split, Task
from subtune_jax.data import dense, folders, images, splits

TINY: dict[str, Any] = {}  # beside what `write_sample` returns


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
      values: of the masks that stand for the classes, in their order, each in
        [0, 255]; none for 0, 1 and so on.
      ignored: values in [0, 255] of pixels that do not count, as 255 does if it is no
        class.
      threshold: the least value in [1, 255] of the second of two classes, for masks
        whose values are brightness; 0 for classes.
      validation: fraction in (0, 1) cut from training where there is no such folder.
      seed: of the cut.

    Raises:
      ValueError: a folder or a mask is missing, or the values do not fit the classes;
        when it is read, a mask is not as large as its image, or holds another value.
    """
    code = _code(classes, values, ignored, threshold)
    root = Path(path).expanduser()
    train, test = _pairs(root / "train"), _pairs(root / "test")
    folder = folders.validation(root)
    if folder is not None:
        parts = train, _pairs(folder), test
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
        rest = f"{len(classes)} classes, values={values}, ignored={ignored}"
        what = f"folder_masks threshold={threshold} with {rest}"
        raise ValueError(f"{what}; a threshold tells two classes apart, by itself")
    known = dense.values("folder_masks", classes, values, ignored)
    return Code(known, ignored, threshold)


def _pairs(folder: Path) -> list[Pair]:
    image_of, mask_of = _files(folder / "images"), _files(folder / "masks")
    for files, others, what in (
        (image_of, mask_of, "mask"),
        (mask_of, image_of, "image"),
    ):
        for stem, file in files.items():
            if stem not in others:
                raise ValueError(f"{file} has no {what} of its name beside it")
    return [Pair(file, mask_of[stem]) for stem, file in image_of.items()]


def _files(folder: Path) -> dict[str, Path]:
    """Stem -> file, in alphabetical order."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; the layout is SPLIT/images, SPLIT/masks")
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("[!.]*")):
        if folders.is_image(file):
            if file.stem in files:
                raise ValueError(f"{files[file.stem]} and {file} have one name")
            files[file.stem] = file
    folders.check_images(folder, files)
    return files


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


def write_sample(folder: Path) -> dict[str, Any]:
    """Images of noise and masks of 0 and 1: 24 for training, 4 for test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 4)):
        for number in range(count):
            for name, values in (("images", 256), ("masks", 2)):
                pixels = rng.integers(0, values, (5, 4), np.uint8)
                images.write(folder / part / name / f"{number}.png", pixels)
    return {"path": str(folder)}
