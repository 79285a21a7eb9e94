"""Choosing: from scores to masks with exact counts.

Scores are a tree of arrays, or one array; higher is better. Masks come back in the
same structure, as boolean NumPy arrays of the scores' shapes. All of it runs on the
host. Of equal scores the one with the lowest index wins, so a mask depends on the
scores alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax import masks, ranking, trees
from subtune_jax.contracts import Mask
from subtune_jax.names import near

SCOPES = ("neuron", "array", "network")


def by_scope(
    scores: Any,
    scope: str,
    fraction: float | None = None,
    count: int | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Mask:
    """Marks the best scores of every neuron, of every array or of the whole network.

    Args:
      scores: tree of arrays.
      scope: `"neuron"`, `"array"` or `"network"`.
      fraction: share of each neuron, each array or the network, as `share` rounds it.
      count: number of elements of each of them; exactly one of the two is given.
      neuron_axes: as in `top_per_neuron`.

    Raises:
      ValueError: unknown scope, none or two budgets, or more than there is.
    """
    if (fraction is None) == (count is None):
        raise ValueError(f"{fraction=}, {count=}; exactly one of them is needed")
    if scope not in SCOPES:
        raise ValueError(f"no scope named {scope!r}; {near(scope, SCOPES)}")

    def budget(size: int, where: str) -> int:
        if fraction is not None:
            return share(fraction, size)
        return _whole("count", count, 1, size, where)

    if scope == "neuron":
        return _per_neuron(scores, budget, neuron_axes)
    return _per_array(scores, budget) if scope == "array" else _overall(scores, budget)


def top_per_neuron(
    scores: Any, k: int, neuron_axes: Mapping[str, Sequence[int]] | None = None
) -> Mask:
    """Marks the `k` best-scored input connections of every output neuron.

    The last axis is the output neuron: a dense kernel `[in, out]` and a convolution
    `[h, w, in, out]` are both read as `[fan_in, out]`. Vectors and scalars have no
    inputs: nothing of them is marked, unless `neuron_axes` names them.

    >>> top_per_neuron(np.array([[1.0, 5.0], [3.0, 4.0]]), 1)
    array([[False,  True],
           [ True, False]])

    Args:
      scores: tree of arrays, higher is better.
      k: connections per neuron, `1 <= k <= fan_in` of every array.
      neuron_axes: leaf path -> its output axes, `{"query/kernel": (1, 2)}` for
        `[in, heads, width]`; the path of a bare array is `""`.

    Returns:
      Masks with exactly `k` true elements per neuron; ties to the lowest input index,
      that is to the lowest flat index over the other axes.

    Raises:
      ValueError: `k` is out of range, a score is NaN, or `neuron_axes` names a leaf
        or an axis that is not there.

    Source: Zhang et al., "Gradient-based Parameter Selection for Efficient
    Fine-Tuning", arXiv:2312.10136. Its kernels are `[out, in, h, w]`: among equal
    scores it may keep others than these.
    """
    return _per_neuron(
        scores, lambda fan_in, where: _whole("k", k, 1, fan_in, where), neuron_axes
    )


def top_per_array(scores: Any, fraction: float) -> Mask:
    """Marks the best-scored `share(fraction, n)` of the n elements of every array.

    Ties go to the lowest flat index.

    Raises:
      ValueError: `fraction` is outside [0, 1], or a score is NaN.
    """
    return _per_array(scores, lambda size, _: share(fraction, size))


def top_overall(scores: Any, count: int) -> Mask:
    """Marks the `count` best scores of all arrays together, `0 <= count <= n`.

    Ties go to the first leaf in the order of sorted paths, then to the lowest flat
    index. Reads the scores about twice and sorts few of them.

    Raises:
      ValueError: `count` is out of range, or a score is NaN.
    """
    return _overall(scores, lambda size, where: _whole("count", count, 0, size, where))


def share(fraction: float, size: int) -> int:
    """`fraction` of `size` elements, half rounded up; at least 1 unless it is 0.

    >>> share(0.25, 10), share(0.001, 10), share(0.0, 10)
    (3, 1, 0)

    Raises:
      ValueError: `fraction` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} is outside [0, 1]")
    return min(size, max(int(fraction * size + 0.5), int(fraction > 0)))


Budget = Callable[[int, str], int]  # (elements there are, where) -> how many to mark


def _per_neuron(
    scores: Any, budget: Budget, neuron_axes: Mapping[str, Sequence[int]] | None
) -> Mask:
    outputs, marks = neuron_axes or {}, {}
    arrays = _arrays(scores)
    for path in outputs:
        if path not in arrays:
            raise ValueError(f"neuron_axes of {path!r}; {trees.nearest(path, arrays)}")
    for path, score in arrays.items():
        if score.ndim < 2 and path not in outputs:
            marks[path] = np.zeros(score.shape, bool)
            continue
        axes = _axes(path, score, outputs.get(path, (-1,)))
        last = range(score.ndim - len(axes), score.ndim)
        moved = np.moveaxis(score, axes, last)
        out = math.prod(score.shape[axis] for axis in axes)
        fan_in = math.prod(score.shape) // max(out, 1)
        k = budget(fan_in, _where(path, score))
        marked = ranking.top_of_columns(moved.reshape(fan_in, out), k).reshape(
            moved.shape
        )
        marks[path] = np.ascontiguousarray(np.moveaxis(marked, last, axes))
    return masks.fill(scores, marks)


def _per_array(scores: Any, budget: Budget) -> Mask:
    marks = {}
    for path, score in _arrays(scores).items():
        number = budget(score.size, _where(path, score))
        marks[path] = ranking.top([score.ravel()], number)[0].reshape(score.shape)
    return masks.fill(scores, marks)


def _overall(scores: Any, budget: Budget) -> Mask:
    arrays = _arrays(scores)
    number = budget(sum(score.size for score in arrays.values()), "")
    kind = np.result_type(np.float32, *arrays.values())
    flat = [score.ravel().astype(kind, copy=False) for score in arrays.values()]
    marked = zip(arrays.items(), ranking.top(flat, number), strict=True)
    return masks.fill(scores, {p: m.reshape(s.shape) for (p, s), m in marked})


def _arrays(scores: Any) -> dict[str, np.ndarray]:
    """Scores on the host by path, in float32 or float64."""
    arrays = {}
    for path, leaf in trees.leaves(scores).items():
        score = np.asarray(leaf)
        if score.dtype not in (np.float32, np.float64):
            wide = np.float32 if score.dtype.itemsize <= 2 else np.float64
            score = score.astype(wide)
        if score.size and np.isnan(score.max()):
            number = np.count_nonzero(np.isnan(score))
            raise ValueError(f"{number} NaN{_where(path, score)}; scores are numbers")
        arrays[path] = score
    return arrays


def _axes(path: str, score: np.ndarray, given: Sequence[int]) -> tuple[int, ...]:
    axes = tuple(
        axis % score.ndim for axis in given if -score.ndim <= axis < score.ndim
    )
    if len(set(axes)) != len(given):
        raise ValueError(
            f"neuron axes {tuple(given)} are not axes{_where(path, score)}"
        )
    return axes


def _whole(name: str, value: Any, low: int, high: int, where: str) -> int:
    if not low <= value <= high or value != int(value):
        kind = "" if value == int(value) else "no whole number or "
        raise ValueError(f"{name}={value} is {kind}outside [{low}, {high}]{where}")
    return int(value)


def _where(path: str, score: np.ndarray) -> str:
    return f" for {path!r} {score.shape}" if path else f" for an array {score.shape}"
