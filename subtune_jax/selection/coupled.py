"""Coupled choices: whole attention heads and whole channels of an MLP.

A head is a slice of the columns of query, key and value and of the rows of out; a
channel is a column of fc1, with its bias, and a row of fc2. Groups say which slices
belong together: a mapping from a name to `(path, axis)` of every array it spans.
Slices may be put in another order without changing what the network computes, so the
chosen ones can come first: then what is trained is one contiguous part of each array.

Source: "S2FT" (arXiv:2412.06289), whose released code selects at random.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Params
from subtune_jax.selection import masks, score_arrays, structured

Groups = Mapping[str, Sequence[tuple[str, int]]]  # name -> (path, axis) of its arrays
HEADS = {r"attn/(query|key|value)/(kernel|bias)": -1, r"attn/out/kernel": 0}
CHANNELS = {r"fc1/(kernel|bias)": -1, r"fc2/kernel": 0}


def heads(tree: Any) -> dict[str, list[tuple[str, int]]]:
    """Groups of attention heads, named by what contains `attn`, as in `block01`.

    Their width is that of a head, which no array tells: give it to `coupled`. Biases
    are among them where `tree` has them; the bias of out belongs to no head.
    """
    return _groups(tree, HEADS)


def channels(tree: Any) -> dict[str, list[tuple[str, int]]]:
    """Groups of MLP channels, named by what contains `fc1` and `fc2`."""
    return _groups(tree, CHANNELS)


def coupled(
    scores: Any,
    groups: Groups,
    fraction: float | None = None,
    count: int | None = None,
    width: int = 1,
) -> Mask:
    """Marks the best slices of every group, through all of its arrays.

    A slice is scored by the sum of all its elements, in float64; ties go to the first.

    Args:
      scores: tree of arrays.
      groups: name -> `(path, axis)` of the arrays whose slices belong together, such
        as `channels(scores)`.
      fraction: share of the slices of each group, as `choose.share` rounds it.
      count: slices of each group, 0 or more; exactly one of the two.
      width: of a slice, along `axis`: 1 for channels, that of a head for heads.

    Raises:
      ValueError: none or two budgets or more than there is; a path or an axis that is
        not there, a length that is no multiple of `width`, or arrays of one group with
        different numbers of slices; a sum that is NaN.
    """
    budget = score_arrays.one_of(0, fraction=fraction, count=count)
    leaves = score_arrays.read(scores)
    width = score_arrays.whole("width", width, 1, float("inf"))
    marks = {path: np.zeros(score.shape, bool) for path, score in leaves.items()}
    for name, members in groups.items():
        slices = _slices(leaves, name, members, width)
        with np.errstate(invalid="ignore"):
            parts = [part.sum(axis=1, dtype=np.float64) for part in slices]
            total = np.sum(parts, axis=0)
        score_arrays.summed(leaves, {name: total})
        (flags,) = structured.best_of([total], budget(total.size, f" for {name!r}"))
        for path, axis in members:
            np.moveaxis(marks[path], axis, 0)[flags.repeat(width)] = True
    return masks.fill(scores, marks)


def orders(mask: Mask, groups: Groups) -> dict[str, np.ndarray]:
    """For every group the order along its axes that puts the chosen slices first.

    Among the chosen, and among the others, the order stays. Chosen is what any array
    of the group marks.

    Args:
      mask: of whole slices, as `coupled` returns it.
      groups: as they were given to `coupled`. What is permuted later may have more
        arrays in the groups of the same names, such as biases.

    Returns:
      Name -> int permutation: at place i comes what was at place `permutation[i]`.

    Raises:
      ValueError: as `coupled`, of the groups.
    """
    leaves = {path: np.asarray(flags) for path, flags in trees.leaves(mask).items()}
    chosen = {
        name: np.any([part.any(1) for part in _slices(leaves, name, members, 1)], 0)
        for name, members in groups.items()
    }
    return {name: np.argsort(~flags, kind="stable") for name, flags in chosen.items()}


def permute(params: Params, groups: Groups, order: Mapping[str, np.ndarray]) -> Params:
    """The same network with the slices of its groups in another order.

    It computes the same function, up to the order in which floats are added, if the
    groups are complete: `heads` and `channels` of `params` with their biases are, and
    heads must stay whole, as after `coupled` with their width. A mask is permuted
    alike. The inverse is `np.argsort` of each order.

    Args:
      params: tree of arrays.
      groups: which arrays, along which axes.
      order: name -> permutation, such as from `orders`; other groups stay.

    Raises:
      ValueError: an order that is no permutation of its group, or is of none; and as
        `coupled`, of the groups.
    """
    flat = trees.leaves(params)
    for name, places in order.items():
        if name not in groups:
            raise ValueError(f"an order of {name!r}; {trees.nearest(name, groups)}")
        length = len(_slices(flat, name, groups[name], 1)[0])
        if not np.array_equal(np.sort(places), np.arange(length)):
            raise ValueError(f"the order of {name!r} is no permutation of {length}")
        for path, axis in groups[name]:
            take = np.take if isinstance(flat[path], np.ndarray) else jnp.take
            flat[path] = take(flat[path], places, axis=axis)
    return trees.map_leaves(lambda path, _: flat[path], params)


def _groups(tree: Any, patterns: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    groups: dict[str, list[tuple[str, int]]] = {}
    for path in trees.leaves(tree):
        for pattern, axis in patterns.items():
            match = re.fullmatch(rf"(?:(.*)/)?{pattern}", path)
            if match:
                groups.setdefault(match[1] or "", []).append((path, axis))
    if not groups:
        given = trees.nearest(next(iter(patterns)), list(trees.leaves(tree)))
        raise ValueError(f"no path ends in {' or '.join(patterns)}; {given}")
    return groups


def _slices(
    leaves: Mapping[str, Any], name: str, members: Sequence[tuple[str, int]], width: int
) -> list[Any]:
    """`[slices, elements]` of every array of a group."""
    slices, first = [], None
    for path, axis in members:
        if path not in leaves:
            raise ValueError(
                f"group {name!r} has {path!r}; {trees.nearest(path, leaves)}"
            )
        array = leaves[path]
        if not -array.ndim <= axis < array.ndim:
            raise ValueError(f"{axis=} is no axis{score_arrays.where(path, array)}")
        length = array.shape[axis]
        if length % width:
            what = f"axis {axis} of {path!r} is {length} long"
            raise ValueError(f"{what}; {width=} needs a multiple")
        first = first or (path, length // width)
        if length // width != first[1]:
            what = f"{first[0]!r} has {first[1]} slices, {path!r} {length // width}"
            raise ValueError(f"{what}; in group {name!r} they belong together")
        slices.append(np.moveaxis(np.asarray(array), axis, 0).reshape(first[1], -1))
    if not slices:
        raise ValueError(f"group {name!r} has no arrays; at least one is needed")
    return slices
