"""Trees by the names of their leaves, `a/b/c`, and some elements of their leaves.

`flatten` and `nest` are for nested dicts that become flat files and back; `leaves` and
`map_leaves` are for trees of any kind.

A leaf whose mask is all true is *whole*: it is taken as it is and costs no index. A
leaf whose mask is partly true is *partial*: its selected elements are gathered, in the
order of their flat positions or neuron by neuron, into k values. All other leaves are
frozen. Positions are data, not constants of the program: a new mask with the same
counts compiles nothing again.
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Maps each leaf's path to the leaf, sorted by path; empty dicts vanish.

    >>> flatten({"b": {"w": 1}, "a": 2})
    {'a': 2, 'b/w': 1}
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return dict(sorted(flat.items())) if not prefix else flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    >>> nest({"a": 2, "b/w": 1})
    {'a': 2, 'b': {'w': 1}}
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by path, sorted by path; a bare array's path is `""`."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return dict(
        sorted(((_path(keys), leaf) for keys, leaf in flat), key=lambda p: p[0])
    )


def pick(tree: Any, paths: Iterable[str]) -> dict[str, Any]:
    """The leaves of any tree at `paths`, by path.

    >>> pick({"a": {"w": 1, "b": 2}, "c": 3}, ["a/b", "c"])
    {'a/b': 2, 'c': 3}
    """
    found = leaves(tree)
    return {path: found[path] for path in paths}


def map_leaves(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Applies `function(path, leaf)` to every leaf of any tree.

    The structure is kept to the letter, empty dicts included.
    """
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(_path(keys), leaf), tree
    )


def rebuild(tree: Any, flat: Mapping[str, Any], default: Any = None) -> Any:
    """A tree of the structure of `tree` that holds `flat[path]`, else `default`.

    >>> rebuild({"a": {"w": 1, "b": 2}}, {"a/w": 3}, 0)
    {'a': {'b': 0, 'w': 3}}
    """
    return map_leaves(lambda path, _: flat.get(path, default), tree)


def nearest(wanted: str, paths: Collection[str]) -> str:
    """`"nearest of 8: 'a/b', ..."`: three paths that hold what is most like `wanted`.

    Stands in for `registry.near` where there are too many to list, and looks inside a
    path, so that `kernel` or a regular expression finds what it was meant for.
    """
    words = "/".join(re.findall(r"\w+", wanted))

    def likeness(path: str) -> float:
        parts = path.split("/")
        ends = range(1, len(parts) + 1)
        spans = ["/".join(parts[i:j]) for j in ends for i in range(j)]
        return max(difflib.SequenceMatcher(None, words, s).ratio() for s in spans)

    best = sorted(paths, key=likeness, reverse=True)[:3]
    return f"nearest of {len(paths)}: {', '.join(map(repr, best)) or 'none'}"


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


Flat = dict[str, Any]  # leaf path -> array
# Inputs of a neuron up to which sampling their gradients beats the dense product on a
# CPU, at 800 and more tokens; from about eight the product is faster.
SAMPLED = 4


def find(params: Any, mask: Any) -> Flat:
    """Positions, int32 `[k]`, of the selected elements of every partial leaf."""
    positions = {}
    for path, leaf, chosen in _pairs(params, mask):
        full = np.broadcast_to(np.asarray(chosen), np.shape(leaf))
        if full.any() and not full.all():
            if full.size > np.iinfo(np.int32).max:
                raise ValueError(f"{path} has {full.size} elements; at most 2**31 - 1")
            positions[path] = jnp.asarray(np.flatnonzero(full), jnp.int32)
    return positions


def gather(positions: Flat, tree: Any, mask: Any) -> Flat:
    """The selected values: whole leaves as they are, of partial ones `[k]`."""
    values = {}
    for path, leaf, chosen in _pairs(tree, mask):
        if path in positions:
            values[path] = take(leaf, positions[path])
        elif np.all(chosen):
            values[path] = leaf
    return values


def arrange(where: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions in the shape that says how their gradient is found (`products`).

    The form is a part of a compiled program's shapes, just as k is.

    Args:
      where: int32 `[k]`, sorted flat positions in an array, some and not all of it.
      shape: of the array; a kernel `[..., O]` is read as `[I, O]`.

    Returns:
      `[O, K]` where each neuron has the same few inputs, neurons being as many of the
      last axes as will do; `[C, I, 1]` for C whole neurons, `[R, 1, O]` for R whole
      inputs; else `[k]`, as they were.
    """
    for axis in range(1, len(shape)):
        outputs = math.prod(shape[axis:])
        each, left = divmod(where.size, outputs)
        if left or not 0 < each <= SAMPLED:
            continue
        if (np.bincount(where % outputs, minlength=outputs) == each).all():
            order = np.argsort(where % outputs, kind="stable")
            return where[order].reshape(outputs, each)
    if len(shape) > 1:
        outputs, inputs = shape[-1], math.prod(shape[:-1])
        columns, rows = np.unique(where % outputs), np.unique(where // outputs)
        if columns.size * inputs == where.size:
            starts = np.arange(inputs, dtype=np.int32) * outputs
            return (columns[:, None] + starts).astype(np.int32)[:, :, None]
        if rows.size * outputs == where.size:
            return where.reshape(-1, 1, outputs)
    return where


def take(leaf: jax.Array, where: jax.Array) -> jax.Array:
    """`leaf` at the flat positions `where`, of their shape."""
    flat = jnp.asarray(leaf).reshape(-1)
    return flat.at[where].get(mode="promise_in_bounds", unique_indices=True)


def put(leaf: jax.Array, where: jax.Array, values: jax.Array) -> jax.Array:
    """`leaf` with `values`, cast to its type, at the flat positions `where`."""
    flat = jnp.asarray(leaf).reshape(-1)
    place = flat.at[where].set
    few = values.astype(leaf.dtype)
    return place(few, mode="promise_in_bounds", unique_indices=True).reshape(leaf.shape)


def spread(positions: Flat, values: Flat, like: Any) -> Any:
    """A tree of the form of `like` with `values` in place and -0.0 elsewhere."""

    def place(path, leaf):
        name = _path(path)
        if name in positions:
            still = jnp.full(leaf.shape, -0.0, leaf.dtype)
            return put(still, positions[name], values[name])
        if name in values:
            return values[name]
        return jnp.full(leaf.shape, -0.0, leaf.dtype)

    return jax.tree_util.tree_map_with_path(place, like)


def _pairs(tree: Any, mask: Any) -> list[tuple[str, Any, Any]]:
    """(path, leaf, its mask) of every leaf; ValueError where the two do not match."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    chosen = jax.tree_util.tree_flatten_with_path(mask)[0]
    here, there = (
        [_path(path) for path, _ in leaves],
        [_path(path) for path, _ in chosen],
    )
    if here != there:
        odd = sorted(set(here) ^ set(there))[:3]
        raise ValueError(f"mask and parameters differ at {odd}; they must match")
    return [
        (name, a, b) for name, (_, a), (_, b) in zip(here, leaves, chosen, strict=True)
    ]
