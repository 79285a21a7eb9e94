"""Clip art: which of eight topics is a drawing of?

The topics are folders of the collection that show things rather than signs. Nearly
the same drawing comes several times: in two folders, or numbered by its artist. So
of pixel-identical drawings one is kept, or none where their topics differ, and
drawings whose file names differ by a last number stay on one side of the cut.

Source: Open Clip Art Library 0.18, public domain.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Task, fetch
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
TOPICS = {
    "buildings": ("buildings",),
    "fruit and vegetables": ("food/fruit", "food/vegetables"),
    "mammals": ("animals/mammals",),
    "music": ("recreation/music",),
    "office": ("office",),
    "plants": ("plants",),
    "tools": ("tools",),
    "vehicles": ("transportation",),
}
NOT_THINGS = {"aiga-symbols", "furniture", "roadsigns", "weapons"}  # folders in these
# Pixel-identical to another drawing, yet a different file; decoding everything to
# find them takes ten seconds.
TWINS = {
    "1989_chevrolet_celebrit_02",
    "45_rpm_record_gerald_g._03",
    "45_rpm_record_gerald_g._04",
    "45_rpm_records_gerald_g._02",
    "dog_02_drawn_with_strai_01",
    "dog_on_leash_gerald_g._02",
    "pear_jean-victor_balin_01r",
    "shelby_cobra_car_bluepr_",
    "stefan_graubner_stefan_g_01",
    "vehicles/cycle_lane",
}


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """The eight topics, 56 to 146 drawings each.

    Args:
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the cut.
    """
    files, labels = _distinct(fetch.path("openclipart"))

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.read(files[index])}

    stems = [_stem(file) for file in files]
    return splits.task(
        "openclipart",
        tuple(TOPICS),
        read,
        labels,
        fractions=fractions,
        seed=seed,
        groups=np.array(stems),
    )


def _distinct(root: Path) -> tuple[list[Path], np.ndarray]:
    files, labels = [], []
    for label, folders in enumerate(TOPICS.values()):
        for folder in folders:
            drawings = sorted((root / folder).rglob("*.png"))
            drawings = [file for file in drawings if _wanted(file)]
            files += drawings
            labels += [label] * len(drawings)
    contents = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    kept = splits.distinct(contents, np.array(labels))
    return [files[i] for i in kept], np.array(labels)[kept]


def _stem(file: Path) -> str:
    """The file's name without its last number, `_01` or `2` or `_01r`."""
    return re.sub(r"_?(\d+r?)?$", "", file.stem)


def _wanted(file: Path) -> bool:
    with file.open("rb") as stream:  # a PNG starts with its width and height
        header = stream.read(24)
    width, height = (int.from_bytes(header[i : i + 4]) for i in (16, 20))
    # Four pieces of fruit are posters of 168 million pixels.
    small = width * height <= images.MAX_PIXELS
    twin = TWINS & {file.stem, f"{file.parent.name}/{file.stem}"}
    return small and not twin and NOT_THINGS.isdisjoint(file.parts)


def write_sample(folder: Path) -> dict[str, Any]:
    """Files as the collection has them: eight drawings of noise for each topic."""
    rng = np.random.default_rng(0)
    for label, (first, *_) in enumerate(TOPICS.values()):
        for letter in "abcdefgh":
            drawing = rng.integers(0, 256, (6, 6, 3), np.uint8)
            images.write(folder / first / f"{label}{letter}.png", drawing)
    return {}
