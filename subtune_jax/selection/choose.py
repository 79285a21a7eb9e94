"""Choosing: from scores to masks with exact counts.

Scores are a tree of arrays, or one array; higher is better. Masks come back in the
same structure, as boolean NumPy arrays of the scores' shapes. All of it runs on the
host. Of equal scores the one with the lowest index wins, so a mask depends on the
scores alone. `score_then_choose` is what most static methods are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.core.registry import near
from subtune_jax.selection import masks, score_arrays, top_k, top_k_columns
from subtune_jax.selection.score_arrays import Budget

# Scope -> the name of what shares a budget with the array of that path.
GROUPS: dict[str, Callable[[str], str]] = {
    "array": lambda path: path,
    "block": lambda path: path.split("/")[0],
    "network": lambda path: "",
}
SCOPES = ("neuron", *GROUPS)
share = score_arrays.share  # how a fraction is rounded


def score_then_choose(
    score: Callable[[Evidence, dict[str, Any]], Any],
    choose: Callable[[dict[str, Any]], Mask],
    among: str,
    extras: str | Callable[[Evidence, Mask], Mask] | None = None,
) -> Selector:
    """The static method that scores the leaves of `among` and trains the best.

    Args:
      score: (evidence, path -> leaf of those below the head that `among` names) ->
        scores of these leaves at least, as a tree like the parameters or by path;
        higher is better.
      choose: (path -> scores of these leaves) -> path -> what is trained of them,
        booleans of their shapes.
      among: regular expression over whole paths: the arrays that are chosen from.
      extras: what is trained besides, counted apart: a regular expression over whole
        paths, or (evidence, mask of the best) -> mask; None for nothing.

    Returns:
      A method whose `init` raises ValueError where a pattern matches nothing.
    """

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        leaves = masks.find(params, among, head)
        scores = trees.pick(score(evidence, leaves), leaves)
        mask = masks.fill(params, choose(scores))
        if callable(extras):
            return Selection(mask, extras(evidence, mask))
        return Selection(mask, masks.besides(params, mask, extras, head))

    return Selector(init)


def by_scope(
    scores: Any,
    scope: str,
    fraction: float | None = None,
    count: int | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
    budget_bytes: int | None = None,
) -> Mask:
    """Marks the best scores of every neuron, array or block, or of the whole network.

    Ties go to the first leaf in the order of sorted paths, then to the lowest flat
    index. Exactly one of `fraction`, `count` and `budget_bytes` is given.

    Args:
      scores: tree of arrays.
      scope: `"neuron"`, `"array"`, `"block"` (all arrays with the same first key) or
        `"network"`.
      fraction: share of each of them in [0, 1], as `share` rounds it.
      count: number of elements of each of them, 1 or more.
      neuron_axes: as in `top_per_neuron`.
      budget_bytes: of the delta of each of them, 8 or more: as many elements as fit,
        all where all fit; see `score_arrays.fitting`.

    Raises:
      ValueError: unknown scope, none or two budgets, or more than there is.
    """
    budget = score_arrays.one_of(
        fraction=fraction, count=count, budget_bytes=budget_bytes
    )
    if scope not in SCOPES:
        raise ValueError(f"no scope named {scope!r}; {near(scope, SCOPES)}")
    if scope == "neuron":
        return _per_neuron(scores, budget, neuron_axes)
    return _per_group(scores, budget, GROUPS[scope])


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
    return _per_neuron(scores, score_arrays.one_of(k=k), neuron_axes)


def top_per_array(scores: Any, fraction: float) -> Mask:
    """Marks the best-scored `share(fraction, n)` of the n elements of every array.

    Ties go to the lowest flat index.

    Raises:
      ValueError: `fraction` is outside [0, 1], or a score is NaN.
    """
    return _per_group(scores, score_arrays.one_of(fraction=fraction), GROUPS["array"])


def top_overall(scores: Any, count: int) -> Mask:
    """Marks the `count` best scores of all arrays together, `0 <= count <= n`.

    Ties go to the first leaf in the order of sorted paths, then to the lowest flat
    index. Reads the scores about once and sorts few of them.

    Raises:
      ValueError: `count` is out of range, or a score is NaN.
    """
    budget = score_arrays.one_of(count=count, least=0)
    return _per_group(scores, budget, GROUPS["network"])


def _per_neuron(
    scores: Any, budget: Budget, neuron_axes: Mapping[str, Sequence[int]] | None
) -> Mask:
    leaves = score_arrays.read(scores)
    axes = score_arrays.output_axes(leaves, neuron_axes)
    columns = score_arrays.columns(leaves, axes)  # path -> [fan_in, neurons]
    ks = score_arrays.counts(budget, columns, leaves, axes)
    marks = score_arrays.unset(array.shape for array in columns.values())
    try:
        top_k_columns.top(list(columns.values()), marks, ks)
    except FloatingPointError:
        score_arrays.refuse_nan(leaves)  # says where; top-k does not know the names
        raise
    marked = dict(zip(columns, marks, strict=True))
    return masks.fill(scores, score_arrays.uncolumned(marked, leaves, axes))


def _per_group(scores: Any, budget: Budget, group: Callable[[str], str]) -> Mask:
    leaves = score_arrays.read(scores)
    unset = score_arrays.unset(score.shape for score in leaves.values())
    marks = dict(zip(leaves, unset, strict=True))
    groups: dict[str, list[str]] = {}
    for path in leaves:
        groups.setdefault(group(path), []).append(path)
    for name, paths in groups.items():
        members = [leaves[path] for path in paths]
        place = f" for block {name!r}" if name else ""
        if name in leaves:
            place = score_arrays.where(name, leaves[name])
        count = budget(sum(score.size for score in members), place)
        kind = np.result_type(np.float32, *members)
        rows = [score.ravel().astype(kind, copy=False) for score in members]
        flat = [marks[path].reshape(-1) for path in paths]  # views, to be filled
        try:
            top_k.top(rows, flat, count)
        except FloatingPointError:
            score_arrays.refuse_nan(leaves)  # says where; top-k does not know the names
            raise
    return masks.fill(scores, marks)
