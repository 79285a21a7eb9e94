"""Convolutions that are as fast on a CPU as they should be.

XLA's depthwise convolution is about ten times slower on a CPU than the same sum
written out as k x k shifted products, and so are its gradients. On a CPU it and both
of its gradients are therefore written out here, in forms whose floating-point
operations XLA counts as what they are; GPU and TPU keep the native form. A 1x1
convolution is a matrix product everywhere. `benches/efficientnet.py` measures it all.

Padding is XLA's 'SAME' unless it is given, then PyTorch's: as many zeros on each side.
Kernels are `[k, k, in, out]`, output neurons last. Functions with their own gradient
have a first derivative only, in reverse mode.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from subtune_jax.models import shifted_products
from subtune_jax.models.layers import BatchNorm, Mode

LAYOUT = ("NHWC", "HWIO", "NHWC")
THIN = 32  # products an output below which a sum of shifts beats the native form
HE = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


def full(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | None = None
) -> jax.Array:
    """`[B, H, W, in]`, `[k, k, in, out]` -> `[B, H', W', out]`; gradients are native.

    The native convolution, but for two cases. In the stem of a network on a CPU, of
    three colours, the sum of shifted products takes a fifth of its time. And what is
    or may be one matrix product is: kernels of one pixel, and outputs smaller than the
    kernel, for which XLA's CPU backend has a scalar loop, forty times slower.
    """
    size, pixels = len(kernel), x.shape[1:3]
    same = lax.padtype_to_pads(pixels, (size, size), (stride, stride), "SAME")
    around = same if padding is None else [(padding, padding)] * 2
    if size > 1 and around == same and kernel[..., 0].size <= THIN:
        return _thin(*_alike(x, kernel), stride)
    padded = [n + sum(zeros) for n, zeros in zip(pixels, around, strict=True)]
    small = (min(padded) - size) // stride + 1 < size
    form = shifted_products.patches if size == 1 or small else _native
    return form(x, kernel, stride, around)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[B, H, W, in]`, `[1, 1, in, out]` -> `[B, H, W, out]`: one matrix product.

    Pixels are flattened first: XLA's CPU weight gradient over several axes costs
    several times its own product.
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return flat.reshape(*x.shape[:-1], flat.shape[-1])


def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`[B, H, W, D]`, `[k, k, 1, D]` -> `[B, ceil(H/stride), ceil(W/stride), D]`.

    Each channel has its own filter. On a CPU sums are in float32 or wider.
    """
    return _depthwise(*_alike(x, kernel), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _thin(x, kernel, stride):
    return _on_platform(shifted_products.full, _native, stride, x, kernel)


def _thin_forward(x, kernel, stride):
    y = _on_platform(
        shifted_products.once(shifted_products.full), _native, stride, x, kernel
    )
    return y, (x, kernel)


def _thin_backward(stride, residuals, dy):
    x, kernel = residuals
    return _native_dx(x, kernel, dy, stride), _native_dkernel(x, kernel, dy, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, stride):
    return _on_platform(shifted_products.depthwise, _native, stride, x, kernel)


def _depthwise_forward(x, kernel, stride):
    y = _on_platform(
        shifted_products.once(shifted_products.depthwise), _native, stride, x, kernel
    )
    return y, (x, kernel)


def _depthwise_backward(stride, residuals, dy):
    # Two expressions that share nothing: the compiler drops the one nobody asks for.
    x, kernel = residuals
    dx = _on_platform(shifted_products.depthwise_dx, _native_dx, stride, x, kernel, dy)
    forms = shifted_products.depthwise_dkernel, _native_dkernel
    return dx, _on_platform(*forms, stride, x, kernel, dy)


_thin.defvjp(_thin_forward, _thin_backward)
_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _alike(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Inside shard_map the batch differs among devices and the kernel does not. JAX
    # adds gradients up over devices where the two meet, but not inside functions with
    # their own gradient: so they meet here, in a zero that the compiler removes.
    nothing = jnp.zeros_like(x, shape=()) + jnp.zeros_like(kernel, x.dtype, ())
    return x + nothing, kernel + nothing.astype(kernel.dtype)


def _on_platform(cpu, default, stride, *arrays):
    return lax.platform_dependent(
        *arrays,
        cpu=functools.partial(cpu, stride=stride),
        default=functools.partial(default, stride=stride),
    )


def _native(x, kernel, stride, around="SAME"):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        around,
        dimension_numbers=LAYOUT,
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _native_dx(x, kernel, dy, stride):
    return jax.vjp(lambda x: _native(x, kernel, stride), x)[1](dy)[0]


def _native_dkernel(x, kernel, dy, stride):
    return jax.vjp(lambda kernel: _native(x, kernel, stride), kernel)[1](dy)[0]


class Conv(nnx.Module):
    """`full` with kernel `[k, k, in, out]`, without bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: int,
        stride: int = 1,
        padding: int | None = None,
        rngs: nnx.Rngs,
    ):
        """Draws `kernel` from He's normal distribution."""
        self.kernel = nnx.Param(HE(rngs.params(), (size, size, inputs, outputs)))
        self.stride = stride
        self.padding = padding

    def __call__(self, x: jax.Array, scale: jax.Array | float = 1.0) -> jax.Array:
        """`[B, H, W, in]` -> `[B, H', W', out]`, times `scale` `[out]`."""
        kernel = (self.kernel[...] * scale).astype(x.dtype)
        return full(x, kernel, self.stride, self.padding)


class PointwiseConv(Conv):
    """`pointwise` with kernel `[1, 1, in, out]`, without bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        """Draws `kernel`."""
        super().__init__(inputs, outputs, size=1, rngs=rngs)

    def __call__(self, x: jax.Array, scale: jax.Array | float = 1.0) -> jax.Array:
        """`[B, H, W, in]` -> `[B, H, W, out]`, times `scale` `[out]`."""
        return pointwise(x, (self.kernel[...] * scale).astype(x.dtype))


class DepthwiseConv(Conv):
    """`depthwise` with kernel `[k, k, 1, D]`, without bias."""

    def __init__(self, channels: int, *, size: int, stride: int = 1, rngs: nnx.Rngs):
        """Draws `kernel`."""
        super().__init__(1, channels, size=size, stride=stride, rngs=rngs)

    def __call__(self, x: jax.Array, scale: jax.Array | float = 1.0) -> jax.Array:
        """`[B, H, W, D]` -> `[B, H', W', D]`, times `scale` `[D]`."""
        return depthwise(x, (self.kernel[...] * scale).astype(x.dtype), self.stride)


def normalised(conv: Conv, norm: BatchNorm, x: jax.Array, mode: Mode) -> jax.Array:
    """`norm(conv(x))`, as one convolution when the statistics are the running ones.

    The kernel is scaled instead of the output. That saves a pass over the output, and
    in the backward pass the output itself: the gradient of the norm's scale follows
    from that of the kernel. To train the scale alone thus costs what the kernel costs.
    """
    if mode.training:
        return norm(conv(x), mode)
    slope = norm.scale[...] * lax.rsqrt(norm.var[...] + norm.epsilon)
    shift = norm.bias[...] - norm.mean[...] * slope
    return conv(x, slope) + shift.astype(x.dtype)
