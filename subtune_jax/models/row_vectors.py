"""One vector for all rows: added to them, or times them, with gradients that are fast.

The gradient of such a vector is a sum over rows. XLA's CPU backend takes twice as long
for it as for the product by ones that is the same sum.
"""

import jax
import jax.numpy as jnp
from jax import lax


def total(x: jax.Array) -> jax.Array:
    """The sum over rows, `[T, D]` -> `[D]`, in float32 or wider."""
    wide = _wide(x)
    ones = jnp.ones((1, len(x)), wide.dtype)
    # Exact: what a TPU multiplies in one pass it rounds to bfloat16.
    return jnp.matmul(ones, wide, precision=lax.Precision.HIGHEST)[0]


def add(x: jax.Array, vector: jax.Array) -> jax.Array:
    """`x + vector`, `[..., D]` and `[D]` of one type."""
    return _flat(_add, x, vector)


def scale(x: jax.Array, vector: jax.Array) -> jax.Array:
    """`x * vector`, `[..., D]` and `[D]` of one type."""
    return _flat(_scale, x, vector)


@jax.custom_vjp
def settled(x: jax.Array) -> jax.Array:
    """`x` of any shape, whose gradient is summed up here, once.

    For the input of a residual block. XLA's CPU backend repeats a sum of gradients in
    each place where it is used, so that each of n blocks in a row would add up those of
    all blocks behind it. A branch is what it does not repeat, nor can it know that
    numbers equal themselves.
    """
    return x


def _flat(function, x, vector):
    rows = x.reshape(-1, x.shape[-1])
    # Inside shard_map the batch differs among devices and the vector does not. JAX adds
    # gradients up where the two meet, but not inside a function with its own gradient:
    # so they meet here, in a zero that the compiler removes.
    nothing = jnp.zeros_like(rows, shape=())
    return function(rows, vector + nothing).reshape(x.shape)


@jax.custom_vjp
def _add(x, vector):
    return x + vector


def _add_forward(x, vector):
    return x + vector, None


def _add_backward(_, dy):
    return dy, total(dy).astype(dy.dtype)


@jax.custom_vjp
def _scale(x, vector):
    return x * vector


def _scale_forward(x, vector):
    return x * vector, (x, vector)


def _scale_backward(residuals, dy):
    x, vector = residuals
    slope = total(_wide(x) * _wide(dy))
    return dy * vector, slope.astype(vector.dtype)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


_add.defvjp(_add_forward, _add_backward)
_scale.defvjp(_scale_forward, _scale_backward)


def _settled_forward(x):
    return x, None


def _settled_backward(_, dy):
    def formed(dy):
        first = dy[(0,) * dy.ndim]
        return lax.cond(first == first, lambda dy: dy, lambda dy: dy * jnp.nan, dy)

    return (lax.platform_dependent(dy, cpu=formed, default=lambda dy: dy),)


settled.defvjp(_settled_forward, _settled_backward)
