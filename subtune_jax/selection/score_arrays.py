"""Arrays of scores: on the host, by path, and read as the inputs of neurons."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax.core import trees


def read(scores: Any) -> dict[str, np.ndarray]:
    """Scores on the host by path, in float32 or float64."""
    found = {}
    for path, leaf in trees.leaves(scores).items():
        score = np.asarray(leaf)
        if score.dtype not in (np.float32, np.float64):
            wide = np.float32 if score.dtype.itemsize <= 2 else np.float64
            score = score.astype(wide)
        found[path] = score
    return found


def refuse_nan(found: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError that names the first array with NaN, if there is one."""
    for path, score in found.items():
        if score.size and np.isnan(score.max()):
            number = np.count_nonzero(np.isnan(score))
            raise ValueError(f"{number} NaN{where(path, score)}; scores are numbers")


def summed(
    found: Mapping[str, np.ndarray], sums: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`sums` if they are numbers.

    Raises:
      ValueError: a score is NaN, or an infinity was added to its opposite.
    """
    for path, each in sums.items():
        if np.isnan(each).any():
            refuse_nan(found)
            place = where(path, found[path]) if path in found else f" for {path!r}"
            raise ValueError(f"a sum of inf and -inf{place}; sums are numbers")
    return dict(sums)


def where(path: str, score: np.ndarray) -> str:
    """The end of an error message: which array it is about."""
    return f" for {path!r} {score.shape}" if path else f" for an array {score.shape}"


def output_axes(
    found: Mapping[str, np.ndarray], given: Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[int, ...]]:
    """Path -> the axes of the output neurons, none for vectors that are not `given`.

    Raises:
      ValueError: `given` names a leaf or an axis that is not there.
    """
    given = given or {}
    for path in given:
        if path not in found:
            raise ValueError(f"neuron_axes of {path!r}; {trees.nearest(path, found)}")
    plain = {path: (-1,) if score.ndim > 1 else () for path, score in found.items()}
    axes = plain | dict(given)
    return {path: _axes(path, score, axes[path]) for path, score in found.items()}


def columns_of(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """`[fan_in, neurons]` of the array whose `axes` are its output neurons."""
    moved = np.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim))
    neurons = math.prod(array.shape[axis] for axis in axes)
    return moved.reshape(array.size // max(neurons, 1), neurons)


def uncolumned(
    columns: np.ndarray, shape: Sequence[int], axes: Sequence[int]
) -> np.ndarray:
    """The array of `shape` whose `columns_of` those are."""
    inputs = [axis for axis in range(len(shape)) if axis not in axes]
    moved = columns.reshape([shape[axis] for axis in (*inputs, *axes)])
    return np.asarray(moved.transpose(np.argsort([*inputs, *axes])), order="C")


def _axes(path: str, score: np.ndarray, given: Sequence[int]) -> tuple[int, ...]:
    axes = tuple(
        axis % score.ndim for axis in given if -score.ndim <= axis < score.ndim
    )
    if len(set(axes)) != len(given):
        raise ValueError(f"neuron axes {tuple(given)} are not axes{where(path, score)}")
    return axes
