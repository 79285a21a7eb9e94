"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import dense, splits
from subtune_jax.contracts import Split, Task
from subtune_jax.names import near

Example = Mapping[str, Any]


class Target(NamedTuple):
    """How the label of an example is found.

    Attributes:
      key: the one feature that it depends on.
      label: value of that feature -> label, an integer.
      classes: names of the classes; None to ask the feature itself.
    """

    key: str = "label"
    label: Callable[[Any], int] = int
    classes: tuple[str, ...] | None = None


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
    builder = _builder(dataset, data_dir)
    features = builder.info.features
    _check_image(dataset, features, image_key, (1, 3))
    if target.key not in features:
        what = f"{dataset} has no feature named {target.key!r}"
        raise ValueError(f"{what}; {near(target.key, features)}")
    classes = target.classes or getattr(features[target.key], "names", None)
    if classes is None:
        raise ValueError(f"{dataset}: feature {target.key!r} has no classes")
    parts = []
    for piece, limit in zip(slices, limits, strict=True):
        source = _source(builder, dataset, piece)
        labels = _labels(source, features, target, limit)
        checked = splits.checked(labels, len(classes), f"{dataset} {piece}")
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
    builder = _builder(dataset, data_dir)
    features = builder.info.features
    _check_image(dataset, features, image_key, (1, 3))
    _check_image(dataset, features, mask_key, (1,))
    parts = []
    for piece in slices:
        source = _source(builder, dataset, piece)
        mask = _masks(source, features, mask_key, f"{dataset} {piece}", recode)
        strata = np.zeros(len(source), np.int32)
        parts.append(Split(_reader(source, image_key, 1), strata, mask))
    return dense.task(name, classes, *parts)


def _check_image(
    dataset: str, features: Any, key: str, channels: Sequence[int]
) -> None:
    if key not in features:
        what = f"{dataset} has no feature named {key!r}"
        raise ValueError(f"{what}; {near(key, features)}")
    image = features[key]
    if image.np_dtype != np.uint8 or (*image.shape, 0, 0, 0)[2] not in channels:
        many = " or ".join(map(str, channels))
        what = f"{dataset}: feature {key!r} is no uint8 image"
        raise ValueError(f"{what} of {many} channels: {image}")


def _builder(dataset: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds  # a second, which other tasks need not pay

    try:
        builder = tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        what = f"TFDS has no data set named {dataset!r}"
        raise ValueError(f"{what}; {_closest(dataset, known)}") from error
    except ValueError as error:
        message = f"TFDS cannot build {dataset!r}: {_line(error)}"
        raise ValueError(message) from error
    # Its reader ignores slices: training data would be in every split.
    if builder.info.file_format == tfds.core.FileFormat.PARQUET:
        raise ValueError(f"{dataset} is prepared as parquet; {_advice(builder)}")
    return builder


def _closest(dataset: str, known: Sequence[str]) -> str:
    hint, *rest = near(dataset, known).split("? ")
    return f"{hint}?" if rest else f"there are {len(known)}, see tfds.list_builders()"


def _advice(builder: Any) -> str:
    """How to prepare the data set of `builder`."""
    name, config = builder.name, builder.builder_config
    dataset = f"{name}/{config.name}" if config else name
    # `builder.data_dir` ends in the name, the config if any, and the version.
    folder = builder.data_path.parents[2 if config else 1]
    arguments = f"'{dataset}', data_dir='{folder}', file_format='array_record'"
    return f"prepare it by tfds.builder({arguments}).download_and_prepare()"


def _source(builder: Any, dataset: str, piece: str) -> Any:
    try:
        return builder.as_data_source(split=piece)
    except NotImplementedError as error:  # nothing there, or only tfrecord files
        what = f"{dataset} is not prepared as array_record in {builder.data_path}"
        raise ValueError(f"{what}; {_advice(builder)}") from error
    except (ValueError, OSError, AssertionError) as error:
        message = f"cannot read {piece!r} of {dataset}: {_line(error)}"
        raise ValueError(message) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _labels(source: Any, features: Any, target: Target, limit: int | None) -> list[int]:
    """The labels of the first examples; of each only one feature is decoded."""
    read = _one(source, features, target.key)
    return [target.label(read(index)) for index in range(len(source))[:limit]]


def _masks(
    source: Any, features: Any, key: str, name: str,
    recode: Callable[[np.ndarray, str], np.ndarray],
) -> Callable[[int], np.ndarray]:  # fmt: skip
    read = _one(source, features, key)

    def mask(index: int) -> np.ndarray:
        return recode(np.asarray(read(index))[..., 0], f"{name}: mask {index}")

    return mask


def _one(source: Any, features: Any, key: str) -> Callable[[int], Any]:
    """Reads one feature of an example and decodes no other."""
    import tensorflow_datasets as tfds

    # TFDS's own partial decoding needs TensorFlow.
    one = tfds.features.FeaturesDict({key: features[key]})

    def read(index: int) -> Any:
        record = source.data_source[index]
        # `tfds.testing.mock_data` hands out examples instead of bytes.
        if isinstance(record, bytes):
            record = one.deserialize_example_np(record)
        return record[key]

    return read


def _reader(source: Any, key: str, brightness: int) -> splits.Read:
    def read(index: int) -> dict[str, np.ndarray]:
        image = np.asarray(source[int(index)][key])
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        return {"image": image * np.uint8(brightness)}

    return read
