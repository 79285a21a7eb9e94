"""Sparse values: what is selected of a tree, gathered, and put back.

A leaf whose mask is all true is *whole*: it is taken as it is and costs no index.
A leaf whose mask is partly true is *partial*: its selected elements are gathered,
in the order of their flat positions or neuron by neuron, into k values. All other
leaves are frozen. Positions are data, not constants of the program, so a new mask with
the same counts compiles nothing again.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
