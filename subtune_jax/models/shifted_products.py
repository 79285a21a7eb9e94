"""Convolutions on a CPU: sums of shifted products, written out.

XLA's CPU backend fuses such a sum into one vectorised loop over the padded image, and
counts its floating-point operations as what they are (the body of a `lax.map` it
would count once). Sums are in float32 or wider. Padding is XLA's 'SAME'.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`[B, H, W, D]`, `[k, k, 1, D]` -> `[B, ceil(H/stride), ceil(W/stride), D]`."""
    wide = _wide(kernel)
    windows = _windows(x, len(kernel), stride).items()
    terms = [window * wide[i, j, 0] for (i, j), window in windows]
    return functools.reduce(operator.add, terms).astype(x.dtype)


def full(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`[B, H, W, in]`, `[k, k, in, out]` -> `[B, ceil(H/stride), ceil(W/stride), out]`.

    For few products an output: the program grows with `k * k * in`.
    """
    wide = _wide(kernel)
    terms = [
        window[..., channel, None] * wide[i, j, channel]
        for (i, j), window in _windows(x, len(kernel), stride).items()
        for channel in range(x.shape[-1])
    ]
    return functools.reduce(operator.add, terms).astype(x.dtype)


def patches(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    around: Sequence[tuple[int, int]],
) -> jax.Array:
    """`[B, H, W, in]`, `[k, k, in, out]` -> `[B, H', W', out]`: one matrix product.

    For small maps: each pixel is copied to every output that sees it. `around` is how
    many zeros are before and after H, and before and after W.
    """
    padded = jnp.pad(x, ((0, 0), *around, (0, 0)))
    size, inputs, outputs = kernel.shape[1:]
    down, right = (pixels - size + 1 for pixels in padded.shape[1:3])
    windows = [
        padded[:, i : i + down : stride, j : j + right : stride]
        for i in range(size)
        for j in range(size)
    ]
    flat = jnp.concatenate(windows, -1).reshape(-1, size * size * inputs)
    product = flat @ kernel.reshape(-1, outputs)
    return product.reshape(*windows[0].shape[:-1], outputs)


def once(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function`, whose result XLA keeps in memory instead of computing it again.

    XLA fuses a sum of products into each of its readers: the backward pass of the
    activation behind it would repeat the whole convolution. Across a condition XLA
    does not fuse, and of this one it cannot see that it always holds.
    """

    def guarded(*arrays: jax.Array, stride: int) -> jax.Array:
        def run(*arrays: jax.Array) -> jax.Array:
            return function(*arrays, stride)

        def never(*arrays: jax.Array) -> jax.Array:
            return jnp.zeros_like(run(*arrays))

        holds = lax.optimization_barrier(jnp.array(True))
        return lax.cond(holds, run, never, *arrays)

    return guarded


def depthwise_dkernel(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int
) -> jax.Array:
    """Gradient of `sum(depthwise(x, kernel) * dy)` by `kernel`, in its shape."""
    # One reduction with k x k accumulators, instead of k x k reductions, reads `dy`
    # once. It keeps B, which the CPU backend shares among threads, and D, along which
    # it uses vector instructions: over all of B, H and W it would do neither.
    dy = _wide(dy)
    products = [window * dy for window in _windows(x, len(kernel), stride).values()]
    zeros = [jnp.zeros((), dy.dtype)] * len(products)
    sums = lax.reduce(products, zeros, lambda a, b: [*map(jnp.add, a, b)], (1, 2))
    stacked = jnp.stack([each.sum(0) for each in sums])
    return stacked.reshape(kernel.shape).astype(kernel.dtype)


def depthwise_dx(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int
) -> jax.Array:
    """Gradient of `sum(depthwise(x, kernel) * dy)` by `x`, in its shape."""
    # dx row `stride * q + a` is reached by the kernel rows `i` that divide
    # `a + above - i`, from the dy row `q` plus the quotient. So each `a` has its own
    # small sum over dy as it is: no product with the zeros of a dilated one.
    batch, height, width, channels = x.shape
    size, wide = len(kernel), _wide(kernel)
    rows, columns = dy.shape[1:3]
    (above, _), (left, _) = (_padding(n, size, stride) for n in (height, width))
    up, down = (size - 1 - above) // stride, (above + stride - 1) // stride
    west, east = (size - 1 - left) // stride, (left + stride - 1) // stride
    padded = jnp.pad(_wide(dy), ((0, 0), (up, down), (west, east), (0, 0)))

    def phase(a: int, b: int) -> jax.Array:
        total = jnp.zeros((), padded.dtype)
        for i in range((a + above) % stride, size, stride):
            for j in range((b + left) % stride, size, stride):
                row = up + (a + above - i) // stride
                column = west + (b + left - j) // stride
                window = padded[:, row : row + rows, column : column + columns]
                total += window * wide[i, j, 0]
        return total

    grid = [jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)]
    shape = (batch, rows * stride, columns * stride, channels)
    return jnp.stack(grid, 2).reshape(shape)[:, :height, :width].astype(x.dtype)


def _windows(x: jax.Array, size: int, stride: int) -> dict[tuple[int, int], jax.Array]:
    """For each kernel offset, the padded pixels it meets: `[B, H', W', in]`."""
    batch, height, width, channels = x.shape
    around = [(0, 0), *(_padding(n, size, stride) for n in (height, width)), (0, 0)]
    # Without the barrier XLA takes the middle window from before the padding, and for
    # that computes whatever led there a second time.
    padded = lax.optimization_barrier(jnp.pad(_wide(x), around))
    down, right = ((-(-n // stride) - 1) * stride + 1 for n in (height, width))
    return {
        (i, j): lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + down, j + right, channels),
            (1, stride, stride, 1),
        )
        for i in range(size)
        for j in range(size)
    }


def _padding(pixels: int, size: int, stride: int) -> tuple[int, int]:
    total = max((-(-pixels // stride) - 1) * stride + size - pixels, 0)
    return total // 2, total - total // 2


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
