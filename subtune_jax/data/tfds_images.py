"""Images that TensorFlow Datasets has prepared, read without TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import dense, splits, tfds_records
from subtune_jax.data.tfds_records import Target


def task(
    name: str,
    dataset: str,
    slices: Sequence[str],
    *,
    target: Target | None = None,
    limits: Sequence[int | None] = (None, None, None),
    image_key: str = "image",
    brightness: int = 1,
    data_dir: str | None = None,
) -> Task:
    """The task of the three `slices` of `dataset`.

    Labels are read here, without the images; images when they are asked for.

    Args:
      name: of the task.
      dataset: name in TFDS, with its config: `"eurosat/rgb"`.
      slices: training, validation and test: `"train[:90%]"`. That they are disjoint
        is up to the caller.
      target: by default the feature `"label"`.
      limits: how many examples of each slice, the first ones; None for all.
      image_key: the feature with the image, one channel or three.
      brightness: factor of all pixels, for images of zeros and ones.
      data_dir: where it was prepared; None for TFDS's own default.

    Raises:
      ValueError: there is no such data set, feature or split, it is not prepared as
        array_record, or a label is outside the classes.
    """
    target = target or Target()
    builder = tfds_records.built(dataset, data_dir)
    features = builder.info.features
    _check_image(dataset, features, image_key, (1, 3))
    label = tfds_records.feature(dataset, features, target.key)
    classes = target.classes or getattr(label, "names", None)
    if classes is None:
        raise ValueError(f"{dataset}: feature {target.key!r} has no classes")
    parts = []
    for piece, limit in zip(slices, limits, strict=True):
        source = tfds_records.source(builder, dataset, piece)
        named = f"{dataset} {piece}"
        labels = tfds_records.read_labels(source, features, target, named, limit)
        checked = splits.checked(labels, len(classes), named)
        parts.append(Split(_reader(source, image_key, brightness), checked))
    train, validation, test = parts
    return Task(name, tuple(classes), train, validation, test)


def dense_task(
    name: str,
    dataset: str,
    slices: Sequence[str],
    *,
    classes: Sequence[str],
    recode: Callable[[np.ndarray, str], np.ndarray],
    image_key: str = "image",
    mask_key: str = "segmentation_mask",
    data_dir: str | None = None,
) -> Task:
    """The dense task of the three `slices` of `dataset`.

    Images and masks are read when they are asked for, each without the other.

    Args:
      name: of the task.
      dataset: name in TFDS, with its config.
      slices: training, validation and test; that they are disjoint is up to the caller.
      classes: their names.
      recode: (mask `[H, W]` as stored, where it stands) -> classes and `IGNORED`.
      image_key: the feature with the image, one channel or three.
      mask_key: the feature with the mask, an image of one channel.
      data_dir: where it was prepared; None for TFDS's own default.

    Raises:
      ValueError: as `task`, or the mask has several channels.
    """
    builder = tfds_records.built(dataset, data_dir)
    features = builder.info.features
    _check_image(dataset, features, image_key, (1, 3))
    _check_image(dataset, features, mask_key, (1,))
    parts = []
    for piece in slices:
        source = tfds_records.source(builder, dataset, piece)
        mask = _masks(source, features, mask_key, f"{dataset} {piece}", recode)
        strata = np.zeros(len(source), np.int32)
        parts.append(Split(_reader(source, image_key, 1), strata, mask))
    return dense.task(name, classes, *parts)


def _check_image(
    dataset: str, features: Any, key: str, channels: Sequence[int]
) -> None:
    image = tfds_records.feature(dataset, features, key)
    if image.np_dtype != np.uint8 or (*image.shape, 0, 0, 0)[2] not in channels:
        many = " or ".join(map(str, channels))
        what = f"{dataset}: feature {key!r} is no uint8 image"
        raise ValueError(f"{what} of {many} channels: {image}")


def _masks(
    source: Any, features: Any, key: str, name: str,
    recode: Callable[[np.ndarray, str], np.ndarray],
) -> Callable[[int], np.ndarray]:  # fmt: skip
    read = tfds_records.partial(source, features, (key,), name)

    def mask(index: int) -> np.ndarray:
        stored = np.asarray(read(index)[key])
        return recode(stored[..., 0], f"{name}: mask {index}")

    return mask


def _reader(source: Any, key: str, brightness: int) -> splits.Read:
    def read(index: int) -> dict[str, np.ndarray]:
        image = np.asarray(source[int(index)][key])
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        return {"image": image * np.uint8(brightness)}

    return read
