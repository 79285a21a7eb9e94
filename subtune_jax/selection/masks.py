"""Masks: which elements of a parameter tree may move.

A mask has the structure of the parameters. Each leaf is a boolean, or an array of
booleans that broadcasts to its parameter: shape `()` takes or leaves the whole
array, the parameter's own shape picks single elements. `True` means trainable.

Everything here runs on the host, in NumPy, and reads of the parameters no more than
their shapes, so that `jax.ShapeDtypeStruct` serves as well. A leaf is named by its
path `a/b/c`; the first name is its block.
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Params
from subtune_jax.core.registry import near


def from_regex(params: Params, pattern: str, skip: Collection[str] = ()) -> Mask:
    """The mask of all leaves whose whole path matches `pattern`.

    >>> from_regex({"a": {"bias": np.ones(2), "kernel": np.ones(2)}}, ".*/bias")
    {'a': {'bias': np.True_, 'kernel': np.False_}}

    Args:
      params: nested dict of arrays.
      pattern: of `re.fullmatch` over `a/b/c`: `.*/kernel`, not `kernel`.
      skip: blocks whose leaves stay False whatever matches.

    Raises:
      ValueError: `pattern` is no regular expression, or matches nothing.
    """
    return fill(params, dict.fromkeys(find(params, pattern, skip), np.True_))


def from_blocks(params: Params, blocks: str | Iterable[str]) -> Mask:
    """The mask of all leaves of `blocks`, or of one block given as a string.

    Raises:
      ValueError: there is no block of that name.
    """
    blocks = [blocks] if isinstance(blocks, str) else list(blocks)
    for block in blocks:
        if block not in params:
            raise ValueError(f"no block named {block!r}; {near(block, params)}")
    inside = [path for path in trees.leaves(params) if path.split("/")[0] in blocks]
    return fill(params, dict.fromkeys(inside, np.True_))


def besides(
    params: Params, m: Mask, pattern: str | None, skip: Collection[str] = ()
) -> Mask | None:
    """The mask of what `pattern` names and `m` leaves out; None without a pattern.

    Raises:
      ValueError: as in `from_regex`, or `m` is not a mask of `params`.
    """
    if pattern is None:
        return None
    flags = {path: flag for path, _, flag in _pairs(params, m)}
    rest = {path: np.logical_not(flags[path]) for path in find(params, pattern, skip)}
    return trees.rebuild(params, rest, np.False_)


def find(params: Params, pattern: str, skip: Collection[str] = ()) -> dict[str, Any]:
    """The leaves whose whole path matches `pattern`, by path; see `from_regex`."""
    try:
        match = re.compile(pattern).fullmatch
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression; {error}") from error
    leaves = {
        p: x for p, x in trees.leaves(params).items() if p.split("/")[0] not in skip
    }
    matching = {path: leaf for path, leaf in leaves.items() if match(path)}
    if not matching:
        near_by = trees.nearest(pattern, leaves)
        raise ValueError(f"no path matches {pattern!r} in full; {near_by}")
    return matching


def fill(params: Params, flags: Mapping[str, Any]) -> Mask:
    """The mask that is `flags[path]` where that is given and False elsewhere.

    Raises:
      ValueError: a path is not in `params`, or its value no mask of that leaf.
    """
    leaves = trees.leaves(params)
    for path, flag in flags.items():
        if path not in leaves:
            raise ValueError(f"no leaf {path!r}; {trees.nearest(path, leaves)}")
        _broadcasts(path, flag, leaves[path])
    return trees.rebuild(params, flags, np.False_)


def invert(m: Mask) -> Mask:
    """The mask of what `m` leaves out.

    >>> invert({"a": np.array([True, False])})
    {'a': array([False,  True])}
    """
    return trees.rebuild(m, {p: np.logical_not(flag) for p, flag in _flags(m).items()})


def union(a: Mask, b: Mask) -> Mask:
    """The mask of what is in `a` or in `b`; leaves broadcast to each other."""
    return _combine(np.logical_or, a, b)


def intersect(a: Mask, b: Mask) -> Mask:
    """The mask of what is both in `a` and in `b`; leaves broadcast to each other."""
    return _combine(np.logical_and, a, b)


def reach(m: Mask) -> Any:
    """Python bool per leaf: may any element of it move?"""
    return trees.rebuild(m, {p: bool(np.any(flag)) for p, flag in _flags(m).items()})


def expand(params: Params, m: Mask) -> Mask:
    """Boolean arrays of the parameters' shapes, read-only where they are views of `m`.

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    pairs = _pairs(params, m)
    full = {path: np.broadcast_to(flag, np.shape(leaf)) for path, leaf, flag in pairs}
    return trees.rebuild(params, full)


def count(params: Params, m: Mask) -> int:
    """Number of elements of `params` that `m` selects, exact.

    >>> count({"a": np.ones((2, 3))}, {"a": np.array([True, False, True])})
    4

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    return sum(selected for _, selected, _ in _counts(params, m))


def table(params: Params, m: Mask) -> str:
    """What `m` selects of each block and in all, as lines of text to print.

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    rows: dict[str, tuple[int, int]] = dict.fromkeys([*params, "total"], (0, 0))
    for path, selected, size in _counts(params, m):
        for name in (path.split("/")[0], "total"):
            rows[name] = (rows[name][0] + selected, rows[name][1] + size)
    width = max(map(len, rows))
    lines = [f"{'block':<{width}} {'selected':>13} {'total':>13}    share"]
    for name, (selected, total) in rows.items():
        share = selected / max(total, 1)
        lines.append(f"{name:<{width}} {selected:>13,} {total:>13,} {share:>8.6f}")
    return "\n".join(lines)


def check(params: Params, m: Mask) -> None:
    """Returns if `m` is a mask of `params`: the same leaves, booleans that broadcast.

    Raises:
      ValueError: it is not; the message names the first leaf that is wrong.
    """
    _pairs(params, m)


def _combine(function: Callable[..., Any], a: Mask, b: Mask) -> Mask:
    left, right = _flags(a), _flags(b)
    _same(left, right)
    both = {}
    for path, flag in left.items():
        try:
            both[path] = function(flag, right[path])
        except ValueError as error:
            shapes = f"{np.shape(flag)} and {np.shape(right[path])}"
            raise ValueError(f"masks of {path!r} are {shapes}; no match") from error
    return trees.rebuild(a, both)


def _counts(params: Params, m: Mask) -> list[tuple[str, int, int]]:
    """Path, number of selected elements, and size, of every leaf."""
    counts = []
    for path, leaf, flag in _pairs(params, m):
        each = leaf.size // max(np.size(flag), 1)  # elements a flag stands for
        counts.append((path, int(np.count_nonzero(flag)) * each, leaf.size))
    return counts


def _pairs(params: Params, m: Mask) -> list[tuple[str, Any, Any]]:
    """Path, leaf and flags of every leaf; ValueError where `m` is no mask of it."""
    leaves, flags = trees.leaves(params), trees.leaves(m)
    _same(leaves, flags)
    pairs = []
    for path, leaf in leaves.items():
        _broadcasts(path, flags[path], leaf)
        pairs.append((path, leaf, flags[path]))
    return pairs


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for path in sorted(set(a) ^ set(b)):
        rest = trees.nearest(path, b if path in a else a)
        raise ValueError(f"leaf {path!r} is in one tree, not in the other; {rest}")


def _broadcasts(path: str, flag: Any, leaf: Any) -> None:
    _boolean(path, flag)
    shape, whole = np.shape(flag), np.shape(leaf)
    with contextlib.suppress(ValueError):
        if np.broadcast_shapes(shape, whole) == whole:
            return
    raise ValueError(f"mask of {path!r} is {shape}; it must broadcast to {whole}")


def _flags(m: Mask) -> dict[str, Any]:
    """The leaves of a mask by path; ValueError where one is not of booleans."""
    flags = trees.leaves(m)
    for path, flag in flags.items():
        _boolean(path, flag)
    return flags


def _boolean(path: str, flag: Any) -> None:
    kind = flag.dtype if hasattr(flag, "dtype") else np.asarray(flag).dtype
    if kind != np.bool_:
        raise ValueError(f"mask of {path!r} is {kind}; masks are booleans")
