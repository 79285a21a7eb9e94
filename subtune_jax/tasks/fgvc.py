"""FGVC: five data sets of fine-grained classes, by the names of TFDS.

Where there is no official validation split, a tenth of training is taken; training
and test are the official ones.
"""

from typing import Any

from subtune_jax import Task
from subtune_jax.core import registry
from subtune_jax.data import tfds_images

TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data
CUT = ("train[:90%]", "train[90%:]", "test")
PRESETS = {
    "cub": ("caltech_birds2011", CUT),
    "flowers": ("oxford_flowers102", ("train", "validation", "test")),
    "cars": ("cars196", CUT),
    "dogs": ("stanford_dogs", CUT),
}


def make(dataset: str = "cub", data_dir: str | None = None) -> Task:
    """The data set of that name: cub, flowers, cars, dogs or nabirds.

    Args:
      dataset: name of the preset, in `PRESETS`.
      data_dir: the folder where TFDS prepared it; None for TFDS's default.

    Raises:
      ValueError: there is no such preset, or TFDS does not have the data set.
    """
    if dataset == "nabirds":
        layout = "lay it out as SPLIT/CLASS/FILE"
        use = "use task.name=folder with task.path"
        raise ValueError(f"TFDS does not have 'nabirds'; {layout} and {use}")
    if dataset not in PRESETS:
        known = registry.near(dataset, [*PRESETS, "nabirds"])
        raise ValueError(f"no data set of FGVC named {dataset!r}; {known}")
    source, slices = PRESETS[dataset]
    return tfds_images.task("fgvc", source, slices, data_dir=data_dir)
