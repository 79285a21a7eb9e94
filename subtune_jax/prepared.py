"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import splits
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
    for key in (image_key, target.key):
        if key not in features:
            what = f"{dataset} has no feature named {key!r}"
            raise ValueError(f"{what}; {near(key, features)}")
    image = features[image_key]
    if image.np_dtype != np.uint8 or (*image.shape, 0)[2] not in (1, 3):
        raise ValueError(f"{dataset}: feature {image_key!r} is no uint8 image: {image}")
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
    import tensorflow_datasets as tfds

    # TFDS's own partial decoding needs TensorFlow.
    one = tfds.features.FeaturesDict({target.key: features[target.key]})
    labels = []
    for index in range(len(source))[:limit]:
        record = source.data_source[index]
        # `tfds.testing.mock_data` hands out examples instead of bytes.
        if isinstance(record, bytes):
            record = one.deserialize_example_np(record)
        labels.append(target.label(record[target.key]))
    return labels


def _reader(source: Any, key: str, brightness: int) -> splits.Read:
    def read(index: int) -> dict[str, np.ndarray]:
        image = np.asarray(source[int(index)][key])
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        return {"image": image * np.uint8(brightness)}

    return read
