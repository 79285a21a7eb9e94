"""Products `[T, I]` by `[I, O]` whose weight gradient is k numbers and nothing else.

Three forms, by the shape of the positions (`trees.arrange`):

| positions | selected | the weight gradient |
|---|---|---|
| `[k]` | anything | the dense product, gathered at once |
| `[O, K]` | K inputs of every neuron | K sums over tokens for each; no product |
| `[C, I, 1]`, `[R, 1, O]` | whole neurons, whole inputs | their part of the product |

All are flat positions in the kernel and become float32 gradients of the same shape. The
gradient of the operand waits for them, lest XLA form the weight gradients of many
layers before it gathers from any. (On a CPU, XLA drops such barriers before it
schedules; its own order was found to keep one alive, and is tested.)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from subtune_jax.models import row_vectors


class How(NamedTuple):
    """How a product is computed.

    Attributes:
      moves: whether the gradient of its operand is wanted.
      precision: as `lax.dot_general` takes it.
      dtype: of the output.
    """

    moves: bool
    precision: Any
    dtype: Any


FLOAT32 = {"preferred_element_type": jnp.float32}
CHUNKS = 8  # pieces of the tokens in which inputs are sampled


def form(
    positions: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[Callable[..., jax.Array], tuple[int, ...]]:
    """The product for positions of a shape, and the shape that it wants them in.

    It is called with (a `How`, x, kernel, probe, where).
    """
    if len(positions) == 2 and positions[0] == kernel[1]:
        return _sampled, positions
    if len(positions) == 3 and positions[1:] in ((kernel[0], 1), (1, kernel[1])):
        return _sliced, positions
    return _gathered, (-1,)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sampled(how, x, kernel, probe, where):
    """`[T, I]` by `[I, O]`; of each column of the kernel K elements are selected."""
    return _product(how, x, kernel)


def _sampled_forward(how, x, kernel, probe, where):
    rows = (where // len(where)).T  # [K, O]
    if rows.size >= x.shape[1]:
        return _product(how, x, kernel), (x, kernel, rows)
    # What is selected is less than the operand, and is kept in its place; now, lest XLA
    # keep the operand until the gradient is due.
    kept = [jnp.take(x, row, axis=1, mode="clip") for row in rows]
    y, kept = lax.optimization_barrier((_product(how, x, kernel), kept))
    return y, (kept, kernel, None)


def _sampled_backward(how, residuals, dy):
    kept, kernel, rows = residuals
    if rows is None:
        slopes = lax.platform_dependent(kept, dy, cpu=by_neuron, default=added)
    else:
        slopes = lax.platform_dependent(kept, dy, rows, cpu=in_pieces, default=at_once)
    dx, slopes = together(how.moves, lambda: _back(how, dy, kernel), slopes.T)
    return dx, None, slopes, None


def in_pieces(x: jax.Array, dy: jax.Array, rows: jax.Array) -> jax.Array:
    """`[K, O]`, over tokens: the inputs `rows` of each neuron times its gradient.

    For a CPU: some tokens at a time, so that what is gathered stays in its cache; and
    in a loop, since XLA may gather in the forward pass and keep what it gathered.
    """
    count = next(n for n in (CHUNKS, 4, 2, 1) if len(x) % n == 0)
    size = len(x) // count

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        part, slope = (
            lax.dynamic_slice_in_dim(some, number * size, size) for some in (x, dy)
        )
        wide = slope.astype(jnp.float32)
        taken = [jnp.take(part, row, axis=1, mode="clip") for row in rows]
        return total + jnp.stack([row_vectors.total(some * wide) for some in taken])

    return lax.fori_loop(0, count, add, jnp.zeros(rows.shape, jnp.float32))


def at_once(x: jax.Array, dy: jax.Array, rows: jax.Array) -> jax.Array:
    """As `in_pieces`, for a GPU, which gathers, multiplies and adds in one kernel.

    In pieces, a step takes 4 % longer there.
    """
    return added([jnp.take(x, row, axis=1, mode="clip") for row in rows], dy)


def by_neuron(taken: Sequence[jax.Array], dy: jax.Array) -> jax.Array:
    """`[K, O]`, over tokens: K times what was taken, `[T, O]`, times the gradient.

    For a CPU: reductions. With products by ones XLA keeps the operands after all.
    """
    return jnp.stack([jnp.einsum("to,to->o", some, dy, **FLOAT32) for some in taken])


def added(taken: Sequence[jax.Array], dy: jax.Array) -> jax.Array:
    """As `by_neuron`, where that would be O products."""
    wide = dy.astype(jnp.float32)
    return jnp.stack([jnp.sum(some * wide, axis=0) for some in taken])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(how, x, kernel, probe, where):
    """`[T, I]` by `[I, O]`; any k elements of the kernel are selected."""
    return _product(how, x, kernel)


def _gathered_forward(how, x, kernel, probe, where):
    return _product(how, x, kernel), (x, kernel, where)


def _gathered_backward(how, residuals, dy):
    x, kernel, where = residuals
    slope = _weights(how, x, dy)
    few = slope.reshape(-1)[where]
    dx, few = together(how.moves, lambda: _back(how, dy, kernel), few)
    return dx, None, few, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sliced(how, x, kernel, probe, where):
    """Whole columns or whole rows of the kernel are selected."""
    return _product(how, x, kernel)


def _sliced_forward(how, x, kernel, probe, where):
    first, outputs = where[:, 0, 0], kernel.shape[1]
    if where.shape[2] == 1:
        return _product(how, x, kernel), (x, kernel, first % outputs, None)
    # The selected inputs are kept in the operand's place; now, as in `_sampled`.
    kept = jnp.take(x, first // outputs, axis=1, mode="clip")
    y, kept = lax.optimization_barrier((_product(how, x, kernel), kept))
    return y, (kept, kernel, None, first)


def _sliced_backward(how, residuals, dy):
    x, kernel, columns, rows = residuals
    if rows is None:
        some = jnp.take(dy, columns, axis=1, mode="clip")
        few = _weights(how, some, x)[:, :, None]
    else:
        few = _weights(how, x, dy)[:, None, :]
    dx, few = together(how.moves, lambda: _back(how, dy, kernel), few)
    return dx, None, few, None


def _product(how: How, x: jax.Array, kernel: jax.Array) -> jax.Array:
    exact = {"precision": how.precision, "preferred_element_type": how.dtype}
    return jnp.matmul(x, kernel, **exact)


def _back(how: How, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    back = jnp.matmul(dy, kernel.T, precision=how.precision)
    return back.astype(kernel.dtype)  # the operand has the kernel's type


def _weights(how: How, a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums over tokens, in float32."""
    exact = {"precision": how.precision, "preferred_element_type": jnp.float32}
    return jnp.matmul(a.T, b, **exact)


def together(moves: bool, back: Callable[[], jax.Array], few: jax.Array) -> Any:
    """The operand's gradient, not before `few` are there; zeros nobody asks for."""
    if not moves:
        return None, few
    return lax.optimization_barrier((back(), few))


_sampled.defvjp(_sampled_forward, _sampled_backward)
_gathered.defvjp(_gathered_forward, _gathered_backward)
_sliced.defvjp(_sliced_forward, _sliced_backward)
