"""Structured choices: from scores to masks of whole columns, rows and tiles, and N:M.

As in `choose`: scores are a tree of arrays or one array, higher is better; masks are
boolean NumPy arrays of the scores' shapes; counts are exact, and of equal ones the
first wins. What is chosen as a whole is scored by the sum of its elements, in float64.
Arrays are read as `[fan_in, neurons]`, a convolution `[h, w, in, out]` as
`[h * w * in, out]`. Nothing of vectors is marked unless `neuron_axes` names them.

Source: sub-matrices, "SMT" (arXiv:2405.15525), whose code averages a 256 x 256 block,
the same order where all blocks are whole; rows and columns of largest sum, "GRFT"
(arXiv:2507.00016); N:M, "Accelerating Sparse Deep Neural Networks" (arXiv:2104.08378).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax.core.contracts import Mask
from subtune_jax.core.registry import near
from subtune_jax.selection import masks, score_arrays, top_k, top_k_columns
from subtune_jax.selection.score_arrays import Budget

TILE_SCOPES = ("array", "network")


def columns(
    scores: Any,
    fraction: float | None = None,
    count: int | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Mask:
    """Marks all inputs of the best output neurons of every array.

    >>> columns(np.array([[1.0, 5.0], [3.0, 4.0]]), count=1)
    array([[False,  True],
           [False,  True]])

    Args:
      scores: tree of arrays.
      fraction: share of the neurons of each array in [0, 1], as `choose.share` rounds.
      count: neurons of each array, 0 or more; exactly one of the two.
      neuron_axes: as in `choose.top_per_neuron`.

    Raises:
      ValueError: none or two budgets or more than there is, a sum that is NaN, or
        `neuron_axes` names a leaf or an axis that is not there.
    """
    budget = score_arrays.one_of(0, fraction=fraction, count=count)
    return _lines(scores, 0, budget, neuron_axes)


def rows(
    scores: Any,
    fraction: float | None = None,
    count: int | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Mask:
    """Marks the best inputs of every array for all its output neurons.

    An input of a convolution is one place of its window in one channel.

    Args:
      scores: tree of arrays.
      fraction: share of the inputs of each array in [0, 1], as `choose.share` rounds.
      count: inputs of each array, 0 or more; exactly one of the two.
      neuron_axes: as in `choose.top_per_neuron`.

    Raises:
      ValueError: as `columns`.
    """
    budget = score_arrays.one_of(0, fraction=fraction, count=count)
    return _lines(scores, 1, budget, neuron_axes)


def n_of_m(scores: Any, n: int, m: int, axis: int = -2) -> Mask:
    """Marks the `n` best of every `m` consecutive elements along the input axis.

    >>> n_of_m(np.array([[1.0], [5.0], [3.0], [4.0]]), 1, 2)[:, 0]
    array([False,  True, False,  True])

    Args:
      scores: tree of arrays; nothing of vectors and scalars is marked.
      n: elements of each group, `0 <= n <= m`.
      m: length of a group, 1 or more.
      axis: of the inputs, -2 in `[in, out]` and in `[h, w, in, out]`.

    Raises:
      ValueError: `n` or `m` is out of range, an array of two or more axes lacks `axis`
        or its length is no multiple of `m`, or a score is NaN.
    """
    m = score_arrays.whole("m", m, 1, float("inf"))
    n = score_arrays.whole("n", n, 0, m)
    leaves = score_arrays.read(scores)
    score_arrays.refuse_nan(leaves)
    marks = {}
    for path, score in leaves.items():
        marks[path] = np.zeros(score.shape, bool)
        if score.ndim < 2:
            continue
        if not -score.ndim <= axis < score.ndim:
            raise ValueError(f"{axis=} is no axis{score_arrays.where(path, score)}")
        length = score.shape[axis]
        if length % m:
            what = f"axis {axis} of {path!r} is {length} long"
            raise ValueError(f"{what}; {n}:{m} needs a multiple of {m}")
        groups = np.moveaxis(score, axis, 0).reshape(length // m, m, -1).swapaxes(0, 1)
        listed = groups.reshape(m, -1)
        (flags,) = score_arrays.unset([listed.shape])
        top_k_columns.top([listed], [flags], [n])
        flags = flags.reshape(groups.shape).swapaxes(0, 1)
        moved = np.moveaxis(marks[path], axis, 0)
        moved[...] = flags.reshape(moved.shape)
    return masks.fill(scores, marks)


def tiles(
    scores: Any,
    size: tuple[int, int] = (128, 128),
    fraction: float | None = None,
    count: int | None = None,
    scope: str = "array",
) -> Mask:
    """Marks the best tiles of every array, or of the whole network.

    Tiles start at the first element; those at the end are as small as what is left,
    count as tiles, and are scored by the sum of what they have. Ties go to the first
    leaf in the order of sorted paths, then to the tile that is first by rows.

    Args:
      scores: tree of arrays; vectors and scalars have no tiles.
      size: (inputs, neurons) of a tile, each 1 or more.
      fraction: share of the tiles in [0, 1], as `choose.share` rounds it.
      count: number of tiles, 0 or more; exactly one of the two.
      scope: the budget is for each `"array"` or for the `"network"`.

    Raises:
      ValueError: an unknown scope, a size below 1, none or two budgets or more than
        there is, or a sum that is NaN.
    """
    budget = score_arrays.one_of(0, fraction=fraction, count=count)
    if scope not in TILE_SCOPES:
        raise ValueError(f"no scope named {scope!r}; {near(scope, TILE_SCOPES)}")
    high, wide = (score_arrays.whole("size", side, 1, float("inf")) for side in size)
    leaves = score_arrays.read(scores)
    marks = {path: np.zeros(score.shape, bool) for path, score in leaves.items()}
    views = {
        p: score_arrays.columns_of(s, (-1,)) for p, s in leaves.items() if s.ndim > 1
    }
    totals = {path: _tile_sums(view, high, wide) for path, view in views.items()}
    sums = score_arrays.summed(leaves, totals)
    for paths in [list(sums)] if scope == "network" else [[path] for path in sums]:
        place = ""
        if scope == "array":
            place = score_arrays.where(paths[0], leaves[paths[0]])
        number = budget(sum(sums[path].size for path in paths), place)
        flags = best_of([sums[path] for path in paths], number)
        for path, best in zip(paths, flags, strict=True):
            tall = best.repeat(high, 0)[: len(views[path])]
            whole = tall.repeat(wide, 1)[:, : views[path].shape[1]]
            marks[path] = whole.reshape(leaves[path].shape)
    return masks.fill(scores, marks)


def best_of(totals: Sequence[np.ndarray], number: int) -> list[np.ndarray]:
    """Flags of the `number` largest of all `totals` together, ties to the first."""
    marks = score_arrays.unset(total.shape for total in totals)
    rows = [total.reshape(-1) for total in totals]
    top_k.top(rows, [mark.reshape(-1) for mark in marks], number)
    return marks


def _lines(
    scores: Any,
    axis: int,
    budget: Budget,
    neuron_axes: Mapping[str, Sequence[int]] | None,
) -> Mask:
    leaves = score_arrays.read(scores)
    axes = score_arrays.output_axes(leaves, neuron_axes)
    views = {
        p: score_arrays.columns_of(s, axes[p]) for p, s in leaves.items() if axes[p]
    }
    score_arrays.refuse_nan({p: s for p, s in leaves.items() if not axes[p]})
    with np.errstate(invalid="ignore"):
        totals = {p: view.sum(axis, np.float64) for p, view in views.items()}
    sums = score_arrays.summed(leaves, totals)
    lines = {}
    for path, total in sums.items():
        number = budget(total.size, score_arrays.where(path, leaves[path]))
        (flags,) = best_of([total], number)
        lines[path] = np.expand_dims(flags, axis) & np.ones(views[path].shape, bool)
    marks = {path: np.zeros(score.shape, bool) for path, score in leaves.items()}
    marks |= score_arrays.uncolumned(lines, leaves, axes)
    return masks.fill(scores, marks)


def _tile_sums(view: np.ndarray, high: int, wide: int) -> np.ndarray:
    """`[tiles of inputs, tiles of neurons]`, in float64."""
    tops, lefts = np.arange(0, len(view), high), np.arange(0, view.shape[1], wide)
    with np.errstate(invalid="ignore"):
        strips = np.add.reduceat(view, tops, axis=0, dtype=np.float64)
        return np.add.reduceat(strips, lefts, axis=1)
