"""Masks: which elements of a parameter tree may move.

A mask has the structure of the parameters. Each leaf is a boolean, or an array of
booleans that broadcasts to its parameter: shape `()` takes or leaves the whole
array, the parameter's own shape picks single elements. `True` means trainable.

Everything here runs on the host, in NumPy, and reads of the parameters no more than
their shapes, so that `jax.ShapeDtypeStruct` serves as well. A leaf is named by its
path `a/b/c`; the first name is its block.
"""

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
    """The mask of what `pattern` names and `m` leaves out; None without a pattern."""
    if pattern is None:
        return None
    return intersect(from_regex(params, pattern, skip), invert(m))


def find(params: Params, pattern: str, skip: Collection[str] = ()) -> dict[str, Any]:
    """The leaves whose whole path matches `pattern`, by path; see `from_regex`."""
    try:
        match = re.compile(pattern).fullmatch
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression; {error}") from error
    flat = {
        p: x for p, x in trees.leaves(params).items() if p.split("/")[0] not in skip
    }
    found = {path: leaf for path, leaf in flat.items() if match(path)}
    if not found:
        raise ValueError(
            f"no path matches {pattern!r} in full; {trees.nearest(pattern, flat)}"
        )
    return found


def fill(params: Params, chosen: Mapping[str, Any]) -> Mask:
    """The mask that is `chosen[path]` where that is given and False elsewhere.

    Raises:
      ValueError: a path is not in `params`, or its value no mask of that leaf.
    """
    flat = trees.leaves(params)
    for path, flags in chosen.items():
        if path not in flat:
            raise ValueError(f"no leaf {path!r}; {trees.nearest(path, flat)}")
        _broadcasts(path, flags, flat[path])
    return trees.map_leaves(lambda path, _: chosen.get(path, np.False_), params)


def invert(m: Mask) -> Mask:
    """The mask of what `m` leaves out.

    >>> invert({"a": np.array([True, False])})
    {'a': array([False,  True])}
    """
    return trees.map_leaves(lambda path, flags: np.logical_not(_flags(path, flags)), m)


def union(a: Mask, b: Mask) -> Mask:
    """The mask of what is in `a` or in `b`; leaves broadcast to each other."""
    return _combine(np.logical_or, a, b)


def intersect(a: Mask, b: Mask) -> Mask:
    """The mask of what is both in `a` and in `b`; leaves broadcast to each other."""
    return _combine(np.logical_and, a, b)


def reach(m: Mask) -> Any:
    """Python bool per leaf: may any element of it move?"""
    return trees.map_leaves(lambda path, flags: bool(np.any(_flags(path, flags))), m)


def expand(params: Params, m: Mask) -> Mask:
    """Boolean arrays of the parameters' shapes, read-only where they are views of `m`.

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    check(params, m)
    flags = trees.leaves(m)
    return trees.map_leaves(
        lambda path, leaf: np.broadcast_to(flags[path], np.shape(leaf)), params
    )


def count(params: Params, m: Mask) -> int:
    """Number of elements of `params` that `m` selects, exact.

    >>> count({"a": np.ones((2, 3))}, {"a": np.array([True, False, True])})
    4

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    return sum(_counts(params, m).values())


def table(params: Params, m: Mask) -> str:
    """What `m` selects of each block and in all, as lines of text to print.

    Raises:
      ValueError: `m` is not a mask of `params`.
    """
    counts, arrays = _counts(params, m), trees.leaves(params)
    rows: dict[str, tuple[int, int]] = dict.fromkeys([*params, "total"], (0, 0))
    for path, selected in counts.items():
        for name in (path.split("/")[0], "total"):
            rows[name] = (rows[name][0] + selected, rows[name][1] + arrays[path].size)
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
    arrays, flags = trees.leaves(params), trees.leaves(m)
    _same(arrays, flags)
    for path, leaf in arrays.items():
        _broadcasts(path, flags[path], leaf)


def _combine(function: Callable[..., Any], a: Mask, b: Mask) -> Mask:
    others = trees.leaves(b)
    _same(trees.leaves(a), others)

    def combine(path: str, flags: Any) -> Any:
        pair = _flags(path, flags), _flags(path, others[path])
        try:
            return function(*pair)
        except ValueError as error:
            shapes = " and ".join(str(np.shape(each)) for each in pair)
            raise ValueError(f"masks of {path!r} are {shapes}; no match") from error

    return trees.map_leaves(combine, a)


def _counts(params: Params, m: Mask) -> dict[str, int]:
    check(params, m)
    flags, counts = trees.leaves(m), {}
    for path, leaf in trees.leaves(params).items():
        each = leaf.size // max(np.size(flags[path]), 1)  # elements a flag stands for
        counts[path] = int(np.count_nonzero(flags[path])) * each
    return counts


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for path in sorted(set(a) ^ set(b)):
        rest = trees.nearest(path, b if path in a else a)
        raise ValueError(f"leaf {path!r} is in one tree, not in the other; {rest}")


def _broadcasts(path: str, flags: Any, leaf: Any) -> None:
    given, whole = np.shape(_flags(path, flags)), np.shape(leaf)
    fits = len(given) <= len(whole) and all(
        f in (1, n) for f, n in zip(given[::-1], whole[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"mask of {path!r} is {given}; it must broadcast to {whole}")


def _flags(path: str, flags: Any) -> Any:
    kind = flags.dtype if hasattr(flags, "dtype") else np.asarray(flags).dtype
    if kind != np.bool_:
        raise ValueError(f"mask of {path!r} is {kind}; masks are booleans")
    return flags
