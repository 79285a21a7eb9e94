"""Any image classification data set of TensorFlow Datasets, by name.

It must have been prepared in a format with random access:
`tfds.builder(NAME, file_format="array_record").download_and_prepare()`.
"""

from typing import Any

from subtune_jax import Task
from subtune_jax.data import tfds_images

TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data


def make(
    dataset: str = "cifar10",
    train: str = "train[:90%]",
    validation: str = "train[90%:]",
    test: str = "test",
    image_key: str = "image",
    label_key: str = "label",
    data_dir: str | None = None,
) -> Task:
    """A task of three slices, in the notation of TFDS.

    Args:
      dataset: its name, with its config if it has several.
      train: its slice for training.
      validation: its slice for choosing; it must not overlap with training.
      test: its slice for the result; it must not overlap with either.
      image_key: the feature with the image.
      label_key: the feature with the label, a `ClassLabel`.
      data_dir: the folder where TFDS prepared it; None for TFDS's default.
    """
    return tfds_images.task(
        "tfds",
        dataset,
        (train, validation, test),
        target=tfds_images.Target(label_key),
        image_key=image_key,
        data_dir=data_dir,
    )
