"""Any data set of TensorFlow Datasets with masks, by name: a class for every pixel.

It must have been prepared in a format with random access, as for `tasks/tfds.py`.
"""

import functools
from collections.abc import Sequence
from typing import Any

from subtune_jax import Task
from subtune_jax.data import dense, tfds_images

TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data


def make(
    dataset: str = "oxford_iiit_pet",
    classes: Sequence[str] = ("background", "pet"),
    values: Sequence[int] = (2, 1),
    ignored: Sequence[int] = (3,),
    train: str = "train[:90%]",
    validation: str = "train[90%:]",
    test: str = "test",
    image_key: str = "image",
    mask_key: str = "segmentation_mask",
    data_dir: str | None = None,
) -> Task:
    """A task of three slices, in the notation of TFDS.

    Args:
      dataset: its name, with its config if it has several.
      classes: their names, the background first: mDice leaves it out.
      values: of the masks that stand for the classes, in their order, each in
        [0, 255]; none for 0, 1 and so on.
      ignored: values in [0, 255] of pixels that do not count, as 255 does if it is no
        class.
      train: its slice for training.
      validation: its slice for choosing; it must not overlap with training.
      test: its slice for the result; it must not overlap with either.
      image_key: the feature with the image.
      mask_key: the feature with the mask, one channel.
      data_dir: the folder where TFDS prepared it; None for TFDS's default.

    Raises:
      ValueError: as `tfds_images.dense_task`, or the values do not fit the classes;
        when it is read, a mask holds another value.
    """
    known = dense.values("tfds_masks", classes, values, ignored)
    return tfds_images.dense_task(
        "tfds_masks",
        dataset,
        (train, validation, test),
        classes=classes,
        recode=functools.partial(dense.recoded, values=known, ignored=ignored),
        image_key=image_key,
        mask_key=mask_key,
        data_dir=data_dir,
    )
