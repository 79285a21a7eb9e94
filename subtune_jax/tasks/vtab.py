"""VTAB-1k: nineteen tasks of 800 training and 200 validation images.

The 800 are the first ones of VTAB's training split, the 200 the first ones of its
validation split, and test is its whole test split. "First" is TFDS's order, which
belongs to a version of the data set.

Source: Zhai et al., "A Large-scale Study of Representation Learning with the Visual
Task Adaptation Benchmark", arXiv:1910.04867, and its published code; the label
definitions of the structured tasks are written from memory of that code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import Task
from subtune_jax.core import registry
from subtune_jax.data import tfds_images
from subtune_jax.data.tfds_images import Target

TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data
TENTH = ("train[:800]", "train[90%:]", "test")
OFFICIAL = ("train[:800]", "validation", "test")
FIFTHS = ("train[:800]", "train[60%:80%]", "train[80%:]")
TENTHS = ("train[:800]", "train[80%:90%]", "train[90%:]")
HALVED = ("train[:800]", "test[:50%]", "test[50%:]")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _between(limits: Sequence[float], value: float) -> int:
    """How many of the ascending `limits` lie below `value`."""
    return int(np.searchsorted(limits, value, side="left"))


def _clevr_count(objects: Mapping[str, np.ndarray]) -> int:
    return len(objects["size"]) - 3


CLEVR_DEPTHS = (8.0, 8.5, 9.0, 9.5, 10.0)


def _clevr_distance(objects: Mapping[str, np.ndarray]) -> int:
    return _between(CLEVR_DEPTHS, np.min(objects["pixel_coords"][:, 2]))


KITTI_METRES = (8.0, 20.0, 999.0)


def _kitti_distance(objects: Mapping[str, np.ndarray]) -> int:
    # Types 0 to 2 are car, van and truck; no vehicle at all is the last class.
    ahead = objects["location"][np.asarray(objects["type"]) < 3, 2]
    return _between(KITTI_METRES, np.min(ahead, initial=1000.0))


def _sixteenth(original: int, value: int) -> int:
    return int(value) * 16 // original


class Preset(NamedTuple):
    """A data set of TFDS, VTAB's splits of it, and the label."""

    dataset: str
    slices: tuple[str, str, str] = TENTH
    target: Target = Target()
    brightness: int = 1


CLEVR = ("train[:800]", "train[90%:]", "validation")
PRESETS = {
    "caltech101": Preset("caltech101"),
    "cifar100": Preset("cifar100"),
    "dtd": Preset("dtd", OFFICIAL),
    "flowers102": Preset("oxford_flowers102", OFFICIAL),
    "pets": Preset("oxford_iiit_pet", ("train[:800]", "train[80%:]", "test")),
    "svhn": Preset("svhn_cropped"),
    "sun397": Preset("sun397/tfds", OFFICIAL),
    "camelyon": Preset("patch_camelyon", OFFICIAL),
    "eurosat": Preset("eurosat/rgb", FIFTHS),
    "resisc45": Preset("resisc45", FIFTHS),
    "retinopathy": Preset("diabetic_retinopathy_detection/btgraham-300", OFFICIAL),
    "clevr_count": Preset(
        "clevr", CLEVR, Target("objects", _clevr_count, tuple("3456789") + ("10",))
    ),
    "clevr_distance": Preset(
        "clevr", CLEVR, Target("objects", _clevr_distance, _numbered(6))
    ),
    "dmlab": Preset("dmlab", OFFICIAL),
    "kitti": Preset(
        "kitti", OFFICIAL, Target("objects", _kitti_distance, _numbered(4))
    ),
    "dsprites_location": Preset(
        "dsprites",
        TENTHS,
        Target("label_x_position", lambda x: _sixteenth(32, x), _numbered(16)),
        255,
    ),
    "dsprites_orientation": Preset(
        "dsprites",
        TENTHS,
        Target("label_orientation", lambda x: _sixteenth(40, x), _numbered(16)),
        255,
    ),
    "smallnorb_azimuth": Preset(
        "smallnorb", HALVED, Target("label_azimuth", int, _numbered(18))
    ),
    "smallnorb_elevation": Preset(
        "smallnorb", HALVED, Target("label_elevation", int, _numbered(9))
    ),
}


def make(dataset: str = "cifar100", data_dir: str | None = None) -> Task:
    """The task of that name, with 800, 200 and all test images.

    Args:
      dataset: one of the nineteen names in `PRESETS`.
      data_dir: the folder where TFDS prepared it; None for TFDS's default.

    Raises:
      ValueError: there is no such task.
    """
    if dataset not in PRESETS:
        known = registry.near(dataset, PRESETS)
        raise ValueError(f"no task of VTAB named {dataset!r}; {known}")
    source, slices, target, brightness = PRESETS[dataset]
    return tfds_images.task(
        "vtab",
        source,
        slices,
        target=target,
        limits=(800, 200, None),
        brightness=brightness,
        data_dir=data_dir,
    )
