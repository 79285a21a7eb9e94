"""Products `[T, I]` by `[I, O]` whose weight gradient is k numbers and nothing else.

Three forms, by the shape of the positions (`sparse.arrange`):

| positions | selected | the weight gradient |
|---|---|---|
| `[k]` | anything | the dense product, gathered at once |
| `[O, K]` | K inputs of every neuron | K sums over tokens for each; no product |
| `[C, I, 1]`, `[R, 1, O]` | whole neurons, whole inputs | their part of the product |

All are flat positions in the kernel and become float32 gradients of the same shape. The
gradient of the operand waits for them: without that, XLA may form the weight gradients
of many layers before it gathers from any.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

CHUNKS = 8  # pieces of the tokens in which inputs are sampled


def form(
    positions: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[Callable[..., jax.Array], tuple[int, ...]]:
    """The product for positions of a shape, and the shape that it wants them in.

    It is called with (whether the gradient of `x` is wanted, x, kernel, probe, where).
    """
    if len(positions) == 2 and positions[0] == kernel[1]:
        return _sampled, positions
    if len(positions) == 3 and positions[1:] in ((kernel[0], 1), (1, kernel[1])):
        return _sliced, positions
    return _gathered, (-1,)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sampled(moves, x, kernel, probe, where):
    """`[T, I]` by `[I, O]`; of each column of the kernel K elements are selected."""
    return x @ kernel


def _sampled_forward(moves, x, kernel, probe, where):
    rows = (where // len(where)).T  # [K, O]
    if rows.size >= x.shape[1]:
        return x @ kernel, (x, kernel, rows)
    # What is selected is less than the operand, and is kept in its place; now, lest XLA
    # keep the operand until the gradient is due.
    kept = [jnp.take(x, row, axis=1, mode="clip") for row in rows]
    y, kept = lax.optimization_barrier((x @ kernel, kept))
    return y, (kept, kernel, None)


def _sampled_backward(moves, residuals, dy):
    kept, kernel, rows = residuals
    if rows is None:
        slopes = jnp.stack([_sums(taken, dy) for taken in kept])
    else:
        # XLA may gather long before the gradient is there, and keep what it gathered.
        # An index that depends on the gradient makes it wait, where a barrier does not.
        later = (0 * dy[0, 0]).astype(jnp.int32)
        slopes = _sums_of_inputs(kept, dy, rows + later)
    dx, slopes = together(moves, lambda: dy @ kernel.T, slopes.T)
    return dx, None, slopes, None


def _sums_of_inputs(x: jax.Array, dy: jax.Array, rows: jax.Array) -> jax.Array:
    """`[K, O]`, over tokens: the inputs `rows` of each neuron times its gradient.

    Some tokens at a time, so that what is gathered stays in the processor's cache.
    """
    count = next(n for n in (CHUNKS, 4, 2, 1) if len(x) % n == 0)
    size = len(x) // count

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        part, slope = (
            lax.dynamic_slice_in_dim(some, number * size, size) for some in (x, dy)
        )
        sums = [_sums(jnp.take(part, row, axis=1, mode="clip"), slope) for row in rows]
        return total + jnp.stack(sums)

    return lax.fori_loop(0, count, add, jnp.zeros(rows.shape, jnp.float32))


def _sums(taken: jax.Array, dy: jax.Array) -> jax.Array:
    return jnp.einsum("to,to->o", taken, dy, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(moves, x, kernel, probe, where):
    """`[T, I]` by `[I, O]`; any k elements of the kernel are selected."""
    return x @ kernel


def _gathered_forward(moves, x, kernel, probe, where):
    return x @ kernel, (x, kernel, where)


def _gathered_backward(moves, residuals, dy):
    x, kernel, where = residuals
    slope = jnp.matmul(x.T, dy, preferred_element_type=jnp.float32)
    dx, few = together(moves, lambda: dy @ kernel.T, slope.reshape(-1)[where])
    return dx, None, few, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sliced(moves, x, kernel, probe, where):
    """Whole columns or whole rows of the kernel are selected."""
    return x @ kernel


def _sliced_forward(moves, x, kernel, probe, where):
    first, outputs = where[:, 0, 0], kernel.shape[1]
    if where.shape[2] == 1:
        return x @ kernel, (x, kernel, first % outputs, None)
    # The selected inputs are kept in the operand's place; now, as in `_sampled`.
    kept = jnp.take(x, first // outputs, axis=1, mode="clip")
    y, kept = lax.optimization_barrier((x @ kernel, kept))
    return y, (kept, kernel, None, first)


def _sliced_backward(moves, residuals, dy):
    x, kernel, columns, rows = residuals
    if rows is None:
        some = jnp.take(dy, columns, axis=1, mode="clip")
        few = jnp.matmul(some.T, x, preferred_element_type=jnp.float32)[:, :, None]
    else:
        few = jnp.matmul(x.T, dy, preferred_element_type=jnp.float32)[:, None, :]
    dx, few = together(moves, lambda: dy @ kernel.T, few)
    return dx, None, few, None


def together(moves: bool, back: Callable[[], jax.Array], few: jax.Array) -> Any:
    """The operand's gradient, not before `few` are there; zeros nobody asks for."""
    if not moves:
        return None, few
    return lax.optimization_barrier((back(), few))


_sampled.defvjp(_sampled_forward, _sampled_backward)
_gathered.defvjp(_gathered_forward, _gathered_backward)
_sliced.defvjp(_sliced_forward, _sliced_backward)
