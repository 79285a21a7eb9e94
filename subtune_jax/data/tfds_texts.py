"""Texts that TensorFlow Datasets has prepared, read without TensorFlow."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax.core.contracts import Split
from subtune_jax.data import splits, tfds_records

# TFDS finds these only once they are imported; its newer ones it finds by name.
MODULES = {"glue": "tensorflow_datasets.text.glue"}


def split(
    dataset: str,
    piece: str,
    columns: Sequence[str],
    label_key: str = "label",
    data_dir: str | None = None,
) -> tuple[Split, tuple[str, ...]]:
    """The examples of a slice that have a label, and the names of the classes.

    Labels are read here, without the texts; texts when they are asked for. A class that
    is -1 says that the label is hidden or that nobody agreed on it: such examples are
    left out.

    Args:
      dataset: name in TFDS, with its config: `"glue/mnli"`.
      piece: the slice: `"train[:90%]"`.
      columns: the feature with the text, and that with the second one if there is any.
      label_key: the feature with the label: a `ClassLabel`, or a number.
      data_dir: where it was prepared; None for TFDS's own default.

    Returns:
      The split and the classes, `()` where the label is a number.

    Raises:
      ValueError: there is no such data set, feature or slice, a column is no text, it
        is not prepared as array_record, or no example has a label.
    """
    family = dataset.split("/")[0]
    if family in MODULES:
        importlib.import_module(MODULES[family])
    builder = tfds_records.built(dataset, data_dir)
    features = builder.info.features
    _check_texts(dataset, features, columns)
    classes = _classes(dataset, features, label_key)
    source = tfds_records.source(builder, dataset, piece)
    target = tfds_records.Target(label_key, int if classes else float)
    name = f"{dataset} {piece}"
    labels = tfds_records.read_labels(source, features, target, name)
    read = _reader(tfds_records.partial(source, features, columns, name), name, columns)
    if not classes:
        return Split(read, splits.numbers(labels, name)), ()
    kept = np.flatnonzero(np.array(labels) >= 0)
    if not len(kept):
        raise ValueError(f"{name}: no example has a label")
    labels = splits.checked(np.maximum(labels, 0), len(classes), name)
    return splits.part(read, labels, kept), classes


def _classes(dataset: str, features: Any, key: str) -> tuple[str, ...]:
    label = tfds_records.feature(dataset, features, key)
    classes = getattr(label, "names", None)
    if classes is None and np.dtype(label.np_dtype).kind not in "iuf":
        what = f"{dataset}: feature {key!r} has no classes and is no number"
        raise ValueError(f"{what}: {label}")
    return tuple(classes or ())


def _check_texts(dataset: str, features: Any, columns: Sequence[str]) -> None:
    import tensorflow_datasets as tfds  # a second, which other tasks need not pay

    for key in columns:
        feature = tfds_records.feature(dataset, features, key)
        if not isinstance(feature, tfds.features.Text):
            raise ValueError(f"{dataset}: feature {key!r} is no text: {feature}")


def _reader(
    partial: Callable[[int], Mapping[str, Any]], name: str, columns: Sequence[str]
) -> splits.Read:
    def read(index: int) -> dict[str, Any]:
        example = partial(int(index))
        texts = [_text(example[key], f"{name}: example {index}") for key in columns]
        return dict(zip(("text", "pair"), texts, strict=False))

    return read


def _text(stored: bytes | str, name: str) -> str:
    if isinstance(stored, str):  # `tfds.testing.mock_data` hands out strings
        return stored
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error.reason}") from error
