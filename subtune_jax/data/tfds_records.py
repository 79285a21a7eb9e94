"""Records of data sets that TensorFlow Datasets has prepared, without TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from subtune_jax.core.registry import near


class Target(NamedTuple):
    """How the label of an example is found.

    Attributes:
      key: the one feature that it depends on.
      label: value of that feature -> label: an integer, or a number to be learnt.
      classes: names of the classes; None to ask the feature itself.
    """

    key: str = "label"
    label: Callable[[Any], float] = int
    classes: tuple[str, ...] | None = None


def feature(dataset: str, features: Any, key: str) -> Any:
    """The feature `key` of those of `dataset`; ValueError if there is none."""
    if key not in features:
        what = f"{dataset} has no feature named {key!r}"
        raise ValueError(f"{what}; {near(key, features)}")
    return features[key]


def built(dataset: str, data_dir: str | None) -> Any:
    """The builder of `dataset`, whose records can be read in any order.

    Raises:
      ValueError: TFDS has no such data set, or it is prepared as parquet.
    """
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
    advice = f"prepare it by tfds.builder({arguments}).download_and_prepare()"
    # TFDS finds the sets of its older folders only once they are imported.
    old = re.match(r"tensorflow_datasets\.text\.\w+", type(builder).__module__)
    return f"{advice} after `import {old[0]}`" if old else advice


def source(builder: Any, dataset: str, piece: str) -> Any:
    """The slice `piece` of a data set: index -> example.

    Raises:
      ValueError: there is no such slice, or it is not prepared as array_record.
    """
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


def read_labels(
    source: Any, features: Any, target: Target, name: str, limit: int | None = None
) -> list[Any]:
    """The labels of the first examples; of each only one feature is decoded.

    Raises:
      ValueError: see `partial`.
    """
    read = partial(source, features, (target.key,), name)
    indices = range(len(source))[:limit]
    return [target.label(read(index)[target.key]) for index in indices]


def partial(
    source: Any, features: Any, keys: Sequence[str], name: str
) -> Callable[[int], Mapping[str, Any]]:
    """Reads some features of an example and decodes no other.

    What it returns raises ValueError that starts with `name` where a file is damaged.
    """
    import tensorflow_datasets as tfds

    # TFDS's own partial decoding needs TensorFlow.
    some = tfds.features.FeaturesDict({key: features[key] for key in keys})

    def read(index: int) -> Any:
        try:
            record = source.data_source[index]
        except RuntimeError as error:
            raise ValueError(f"{name}: example {index}: {_line(error)}") from error
        if record == b"":  # so it comes from a file that is cut off
            raise ValueError(f"{name}: example {index} is not there; prepare it anew")
        # `tfds.testing.mock_data` hands out examples instead of bytes.
        packed = isinstance(record, bytes)
        return some.deserialize_example_np(record) if packed else record

    return read
