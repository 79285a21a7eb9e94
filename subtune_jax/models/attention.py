"""Attention and the activation of transformers, as fast on a CPU as elsewhere."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from subtune_jax.models import layers
from subtune_jax.models.layers import Dense


class Attention(nnx.Module):
    """Multi-head self-attention with three separate products.

    Kernels are `[D, D]`, output neurons last; those of one head lie together.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = layers.LECUN,
        dropout: float = 0.0,
    ):
        """`heads` divides `width`; `dropout` is the rate at which weights are dropped.

        Weights are those of the tokens that are read, after the softmax.
        """
        dense = functools.partial(Dense, width, width, kernel_init=kernel_init)
        self.query = dense(rngs=rngs)
        self.key = dense(rngs=rngs)
        self.value = dense(rngs=rngs)
        self.out = dense(rngs=rngs)
        self.heads = heads
        self.dropout = dropout

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, L, D]` -> `[B, L, D]`; tokens where `mask` `[B, L]` is 0 are not read.

        The softmax is taken in float32 whatever the type of `x`. With a `key` of random
        numbers weights are dropped.
        """
        width = x.shape[2] // self.heads

        def split(flat: jax.Array) -> jax.Array:
            # Heads beside the batch: XLA's CPU gradient of a product whose batch axes
            # are apart takes a third longer.
            return flat.reshape(*x.shape[:2], self.heads, width).swapaxes(1, 2)

        query, keys, value = split(self.query(x)), split(self.key(x)), self.value(x)
        scores = _compared(query * width**-0.5, keys)
        scores = scores.astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :] != 0, scores, -1e30)
        weights = jax.nn.softmax(scores).astype(x.dtype)
        weights = layers.dropout(weights, self.dropout, key, 0)
        read = _summed(weights, split(value))
        return self.out(read.swapaxes(1, 2).reshape(x.shape))


def gelu(x: jax.Array) -> jax.Array:
    """`x` times the normal distribution function of `x`, by erf as PyTorch does.

    `jax.nn.gelu(x, approximate=False)` goes by erfc, whose gradient costs XLA's CPU
    backend as much as a third of the products around it.
    """
    wide = x.astype(jnp.float32)  # 1 + erf cancels: bfloat16 has no digits to spare
    return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


@jax.custom_vjp
def _compared(query, keys):
    """`[..., L, D]` and `[..., M, D]` -> `[..., L, M]`.

    This and `_summed` have the gradients that JAX would give them, as other products:
    XLA's CPU backend takes twice as long for those that sum over the first axis of both
    operands.
    """
    return jnp.matmul(query, keys.swapaxes(-1, -2))


def _compared_forward(query, keys):
    return _compared(query, keys), (query, keys)


def _compared_backward(residuals, dy):
    query, keys = residuals
    return jnp.matmul(dy, keys), jnp.matmul(_turned(dy), query)


@jax.custom_vjp
def _summed(weights, values):
    """`[..., L, M]` and `[..., M, D]` -> `[..., L, D]`."""
    return jnp.matmul(weights, values)


def _summed_forward(weights, values):
    return _summed(weights, values), (weights, values)


def _summed_backward(residuals, dy):
    weights, values = residuals
    back = jnp.matmul(dy, values.swapaxes(-1, -2))
    return back, jnp.matmul(_turned(weights), dy)


def _turned(x):
    """`[..., L, M]` -> `[..., M, L]`: on a CPU in memory too, lest XLA turn it back."""
    turned = x.swapaxes(-1, -2)
    return lax.platform_dependent(
        turned, cpu=lax.optimization_barrier, default=lambda turned: turned
    )


_compared.defvjp(_compared_forward, _compared_backward)
_summed.defvjp(_summed_forward, _summed_backward)
