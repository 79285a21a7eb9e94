"""Operations: products whose weight gradient is k numbers and nothing else.

Each function computes what its plain form computes, and has its own gradient: of the
operand as usual, of the weight only the selected elements, in float32.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax.sparse_step import products
from subtune_jax.sparse_step.products import How


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("value", "probe", "where"),
    meta_fields=("path",),
)
@dataclasses.dataclass(frozen=True)
class Tap:
    """A selected leaf, on its way to where it is used.

    Attributes:
      value: the array, selected values in place; not differentiated.
      probe: float32 zeros of the positions' shape: their gradient is that of the
        selected elements.
      where: int32 flat positions in `value`, in a shape of `trees.arrange`; `[k]`
        once axes have changed places.
      path: of the leaf.
    """

    value: jax.Array
    probe: jax.Array
    where: jax.Array
    path: str


def transpose(tap: Tap, order: Sequence[int]) -> Tap:
    """The tap with its axes in another order; positions become `[k]`."""
    if tuple(order) == tuple(range(tap.value.ndim)):
        return tap
    places = jnp.unravel_index(tap.where.reshape(-1), tap.value.shape)
    shape = tuple(tap.value.shape[axis] for axis in order)
    moved = [places[axis] for axis in order]
    where = jnp.ravel_multi_index(moved, shape, mode="wrap").astype(jnp.int32)
    return Tap(tap.value.transpose(order), tap.probe.reshape(-1), where, tap.path)


def scale(tap: Tap, factor: jax.Array) -> Tap:
    """The tap times what is not trained, of a shape that broadcasts to it."""
    spread = jnp.broadcast_to(factor, tap.value.shape).reshape(-1)
    few = spread[tap.where].astype(jnp.float32)
    return dataclasses.replace(tap, value=tap.value * factor, probe=tap.probe * few)


def whole(tap: Tap) -> jax.Array:
    """The value for any use: its gradient is formed whole and gathered here."""
    return _inject(tap.value, tap.probe.reshape(-1), tap.where.reshape(-1))


def dense(tap: Tap, x: jax.Array, axes: Any, how: How) -> jax.Array:
    """`lax.dot_general(x, value)` over `axes` = (those of x, those of the value).

    Operands are made matrices first: XLA's CPU weight gradient over several axes costs
    several times its own product.

    Args:
      tap: the weight.
      x: the other operand.
      axes: that are summed over.
      how: the product is computed.

    Returns:
      The free axes of `x`, then those of the weight.
    """
    ours, theirs = (tuple(some) for some in axes)
    free = [axis for axis in range(x.ndim) if axis not in ours]
    rest = [axis for axis in range(tap.value.ndim) if axis not in theirs]
    tap = transpose(tap, (*theirs, *rest))
    outer = tap.value.shape[len(theirs) :]
    kernel = tap.value.reshape(-1, math.prod(outer))
    flat = x.transpose(*free, *ours).reshape(-1, len(kernel))
    form, shape = products.form(tap.where.shape, kernel.shape)
    probe, where = tap.probe.reshape(shape), tap.where.reshape(shape)
    y = form(how, flat, kernel, probe, where)
    return y.reshape(*[x.shape[axis] for axis in free], *outer)


def convolution(
    tap: Tap, x: jax.Array, convolve: Callable[..., jax.Array], moves: bool
) -> jax.Array:
    """`convolve(x, value)`, linear in both; as in `dense`."""
    probe, where = tap.probe.reshape(-1), tap.where.reshape(-1)
    return _convolved(convolve, moves, x, tap.value, probe, where)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolved(convolve, moves, x, kernel, probe, where):
    return convolve(x, kernel)


def _convolved_forward(convolve, moves, x, kernel, probe, where):
    return convolve(x, kernel), (x, kernel, where)


def _convolved_backward(convolve, moves, residuals, dy):
    x, kernel, where = residuals
    slope = jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)[0]
    few = slope.reshape(-1)[where].astype(jnp.float32)
    back = lambda: jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)[0]  # noqa: E731
    dx, few = products.together(moves, back, few)
    return dx, None, few, None


def lookup(
    tap: Tap, ids: jax.Array, read: Callable[..., jax.Array], clip: bool
) -> jax.Array:
    """`read(value, ids)`: rows of a table `[V, D]`, ids `[...]` in any order.

    The gradient is summed over equal ids in a buffer of one row for each id, not for
    each row of the table.

    Args:
      tap: the table.
      ids: of rows; what is not in the table reads its end if `clip`, else no row.
      read: the lookup itself.
      clip: as said.
    """
    probe, where = tap.probe.reshape(-1), tap.where.reshape(-1)
    shape = tap.value.shape
    return _looked_up(read, clip, shape, tap.value, probe, where, ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _looked_up(read, clip, shape, table, probe, where, ids):
    return read(table, ids)


def _looked_up_forward(read, clip, shape, table, probe, where, ids):
    return read(table, ids), (where, ids)


def _looked_up_backward(read, clip, shape, residuals, dy):
    (height, width), (where, ids) = shape, residuals
    flat, count = ids.reshape(-1), ids.size
    there = jnp.clip(flat, 0, height - 1)
    known = clip | (flat == there)
    order = jnp.where(known, jnp.arange(count), count).astype(jnp.int32)
    # Of each row of the table, the first id that reads it; of ids, where they add up.
    first = jnp.full(height, count, jnp.int32).at[there].min(order)
    home = jnp.where(known, first[there], count)
    buffer = jnp.zeros((count + 1, width), jnp.float32)
    buffer = buffer.at[home].add(dy.reshape(-1, width).astype(jnp.float32))
    buffer = buffer.at[count].set(0.0)
    return None, buffer[first[where // width], where % width], None, None


@jax.custom_vjp
def _inject(value, probe, where):
    return value


def _inject_forward(value, probe, where):
    return value, where


def _inject_backward(where, slope):
    return None, slope.reshape(-1)[where].astype(jnp.float32), None


_convolved.defvjp(_convolved_forward, _convolved_backward)
_looked_up.defvjp(_looked_up_forward, _looked_up_backward)
_inject.defvjp(_inject_forward, _inject_backward)
