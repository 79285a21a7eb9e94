"""Layers that every network shares, as Flax NNX modules.

A block of a network is an `nnx.Module` whose `__call__(x, mode)` maps `[B, ...]` to
`[B, ...]`. Parameters are cast to the type of `x` where they are used, so the type
of the input decides the type of the computation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from subtune_jax.models import row_vectors

LECUN = nnx.initializers.lecun_normal()


class Mode(NamedTuple):
    """How a block runs.

    Attributes:
      training: use and update batch statistics.
      weight: `[B]`, 0 for padding; None for ones. Read only when training.
      axis_name: the device axis over which batch statistics are taken, if any.
      key: of the block's own random numbers: units are dropped. None: none are.
    """

    training: bool = False
    weight: jax.Array | None = None
    axis_name: str | None = None
    key: jax.Array | None = None


def dropout(x: jax.Array, rate: float, key: jax.Array | None, place: int) -> jax.Array:
    """`x`, each number 0 with probability `rate` and the others scaled up to match.

    The mean stays what it was. The rate is met to 1 in 65,536.

    Args:
      x: of any shape.
      rate: in [0, 1).
      key: of random numbers, of any implementation; None drops nothing.
      place: which of the draws by this key it is.
    """
    dropped_of = round(rate * 2**16)
    if key is None or not dropped_of:
        return x
    kept = _words(jax.random.fold_in(key, place), x.shape) >= dropped_of
    scale = 2**16 / (2**16 - dropped_of)
    return jnp.where(kept, x * jnp.asarray(scale, x.dtype), 0)


def check_rate(name: str, rate: float) -> None:
    """Refuses, by ValueError, a `rate` of dropping that is not in [0, 1)."""
    # The nearest to 1 that leaves something: beyond it, `dropout` would scale by inf.
    if not 0 <= rate <= 1 - 2**-16:
        raise ValueError(f"{name}={rate}; there are rates in [0, 1)")


def _words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint16 of that shape.

    Two of each random uint32: on a CPU half of the time of `jax.random.bits(...,
    "uint16")`, which throws half of its bits away.
    """
    size = math.prod(shape)
    pairs = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
    words = jax.lax.bitcast_convert_type(pairs, jnp.uint16)
    return words.reshape(-1)[:size].reshape(shape)


class Dense(nnx.Module):
    """`x @ kernel + bias` over the last axis, kernel `[in, out]`.

    Leading axes are flattened first: XLA's CPU weight gradient over several axes
    costs several times its own product.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        kernel_init: nnx.Initializer = LECUN,
    ):
        """Draws `kernel`; `bias` starts at zero."""
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., in]` -> `[..., out]`."""
        flat = x.reshape(-1, x.shape[-1]) @ self.kernel[...].astype(x.dtype)
        if self.bias is not None:
            flat = row_vectors.add(flat, self.bias[...].astype(x.dtype))
        return flat.reshape(*x.shape[:-1], flat.shape[-1])


class Head(Dense):
    """A new classifier `[B, D]` -> logits `[B, C]` in float32, weights near zero."""

    def __init__(
        self, width: int, classes: int, *, rngs: nnx.Rngs, dropout: float = 0.0
    ):
        """Small weights: a first prediction near uniform, yet gradients below it.

        `dropout` is the rate at which features are dropped.
        """
        init = nnx.initializers.normal(0.01)
        super().__init__(width, classes, rngs=rngs, kernel_init=init)
        self.dropout = dropout

    def __call__(self, x: jax.Array, mode: Mode | None = None) -> jax.Array:
        """`[B, D]` -> `[B, C]`."""
        key = None if mode is None else mode.key
        return super().__call__(dropout(x.astype(jnp.float32), self.dropout, key, 0))


class LayerNorm(nnx.Module):
    """Normalises the last axis in float32, then scales and shifts."""

    def __init__(self, width: int, *, epsilon: float):
        """Starts at the identity: `scale` one, `bias` zero."""
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., D]`."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        scaled = row_vectors.scale(normal, self.scale[...])
        return row_vectors.add(scaled, self.bias[...]).astype(x.dtype)


class BatchNorm(nnx.Module):
    """Normalises channels by running statistics, or by the batch's when training.

    Batch statistics are weighted by `mode.weight` and taken over all devices of
    `mode.axis_name`, so that padding and the number of devices do not show. The
    running variance takes the unbiased estimate, as PyTorch does.
    """

    def __init__(self, channels: int, *, epsilon: float, momentum: float):
        """Starts at the identity; `momentum` is the share of the old statistic."""
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.epsilon = epsilon
        self.momentum = momentum

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, D]` -> `[B, H, W, D]`."""
        mean, var = self.mean[...], self.var[...]
        if mode.training:
            mean, var, count = _moments(x.astype(jnp.float32), mode)
            # Two or more weighted pixels, always: a batch of one 1x1 map has no
            # variance, and the maximum keeps its estimate finite.
            unbiased = var * count / jnp.maximum(count - 1, 1)
            old = self.momentum
            self.mean[...] = old * self.mean[...] + (1 - old) * mean
            self.var[...] = old * self.var[...] + (1 - old) * unbiased
        slope = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * slope
        return x * slope.astype(x.dtype) + shift.astype(x.dtype)


def _moments(x: jax.Array, mode: Mode) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weighted mean and variance `[D]` of `x` `[B, ..., D]`, and the pixel count."""
    weight = jnp.ones(x.shape[0]) if mode.weight is None else mode.weight

    def total(value: jax.Array) -> jax.Array:
        return value if mode.axis_name is None else jax.lax.psum(value, mode.axis_name)

    pixels = x.size // x.shape[0] // x.shape[-1]
    spread = weight.reshape(-1, *[1] * (x.ndim - 1))
    axes = tuple(range(x.ndim - 1))
    count = total(weight.sum()) * pixels
    mean = total(jnp.sum(x * spread, axes)) / count
    var = total(jnp.sum(jnp.square(x - mean) * spread, axes)) / count
    return mean, var, count
