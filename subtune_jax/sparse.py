"""Sparse values: what is selected of a tree, gathered, and put back.

A leaf whose mask is all true is *whole*: it is taken as it is and costs no index.
A leaf whose mask is partly true is *partial*: its selected elements are gathered,
in the order of their flat positions, into one vector of k values. All other leaves
are frozen. Positions are data, not constants of the program, so a new mask with
the same counts compiles nothing again.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Flat = dict[str, Any]  # leaf path -> array


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


def take(leaf: jax.Array, where: jax.Array) -> jax.Array:
    """`leaf` at the sorted flat positions `where`, `[k]`."""
    return (
        jnp.asarray(leaf)
        .reshape(-1)
        .at[where]
        .get(mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True)
    )


def put(leaf: jax.Array, where: jax.Array, values: jax.Array) -> jax.Array:
    """`leaf` with `values` `[k]`, cast to its type, at the flat positions `where`."""
    flat = (
        jnp.asarray(leaf)
        .reshape(-1)
        .at[where]
        .set(
            values.astype(leaf.dtype),
            mode="promise_in_bounds",
            unique_indices=True,
            indices_are_sorted=True,
        )
    )
    return flat.reshape(leaf.shape)


def spread(positions: Flat, values: Flat, like: Any) -> Any:
    """A tree of the form of `like` with `values` in place and -0.0 elsewhere."""

    def place(path, leaf):
        name = _name(path)
        if name in positions:
            still = jnp.full(leaf.shape, -0.0, leaf.dtype)
            return put(still, positions[name], values[name])
        if name in values:
            return values[name]
        return jnp.full(leaf.shape, -0.0, leaf.dtype)

    return jax.tree_util.tree_map_with_path(place, like)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _pairs(tree: Any, mask: Any) -> list[tuple[str, Any, Any]]:
    """(path, leaf, its mask) of every leaf; ValueError where the two do not match."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    chosen = jax.tree_util.tree_flatten_with_path(mask)[0]
    here, there = (
        [_name(path) for path, _ in leaves],
        [_name(path) for path, _ in chosen],
    )
    if here != there:
        odd = sorted(set(here) ^ set(there))[:3]
        raise ValueError(f"mask and parameters differ at {odd}; they must match")
    return [
        (name, a, b) for name, (_, a), (_, b) in zip(here, leaves, chosen, strict=True)
    ]
