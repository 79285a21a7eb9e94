"""Residual networks: ResNet-18 and -50, and ResNet-26 for images as small as CIFAR's.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
ResNet-50 halves the map in a 3x3 convolution, as the weights of torchvision and timm
expect, and not in the 1x1 convolution before it, as in the paper.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import Rngs
from jax import lax

from subtune_jax import Backbone
from subtune_jax.core import registry
from subtune_jax.models import layers, network
from subtune_jax.models.convolutions import Conv, normalised
from subtune_jax.models.layers import Mode
from subtune_jax.models.weights import resnet_files


class Shape(NamedTuple):
    """What a residual network is made of.

    Attributes:
      width: of the stem.
      small: the images are, and the stem keeps their size.
      stages: kind, number and inner width of blocks; all but the first halve the map.
    """

    width: int
    small: bool
    stages: Sequence[tuple[str, int, int]]


KINDS = {  # kernel sizes, output by inner width, shortcuts padded or projected
    "basic": ((3, 3), 1, False),
    "bottleneck": ((1, 3, 1), 4, False),
    "padded": ((3, 3), 1, True),
}
VARIANTS = {
    "18": Shape(64, False, [("basic", 2, 64 << i) for i in range(4)]),
    "26": Shape(16, True, [("padded", 4, 16 << i) for i in range(3)]),
    "50": Shape(
        64, False, [("bottleneck", n, 64 << i) for i, n in enumerate((3, 4, 6, 3))]
    ),
}
TINY = {  # every kind of block, with its input as it is, padded and projected
    "variant": (8, False, (("basic", 1, 8), ("padded", 1, 16), ("bottleneck", 1, 8))),
    "image_size": 32,
}


class Stem(nnx.Module):
    """7x7 convolution of stride 2, norm, ReLU, max-pool; if `small` 3x3 and no pool."""

    def __init__(self, width: int, small: bool, rngs: Rngs):
        """From three colours to `width`."""
        self.conv = _conv(3, width, *((3, 1) if small else (7, 2)), rngs)
        self.norm = _norm(width)
        self.small = small

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, 3]` -> `[B, H/4, W/4, width]`, or `[B, H, W, width]`."""
        y = normalised(self.conv, self.norm, x, mode)
        # ReLU keeps order, so it may wait until the pool has left a quarter.
        return jax.nn.relu(y if self.small else _max_pool(y))


class Shortcut(nnx.Module):
    """The input in the shape of the output: as it is, projected, or padded."""

    def __init__(self, inputs: int, width: int, stride: int, padded: bool, rngs: Rngs):
        """`padded`: every second pixel and channels of zeros, no parameters."""
        self.projects = not padded and (inputs, stride) != (width, 1)
        if self.projects:
            self.conv = _conv(inputs, width, 1, stride, rngs)
            self.norm = _norm(width)
        self.more, self.stride = width - inputs, stride

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, inputs]` -> `[B, H', W', width]`."""
        if self.projects:
            return normalised(self.conv, self.norm, x, mode)
        x = x[:, :: self.stride, :: self.stride]
        # The paper does not say where the zeros go; in the usual code half are before.
        zeros = (self.more // 2, self.more - self.more // 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), zeros))


class Block(nnx.Module):
    """Convolutions with norms and ReLUs, added to the shortcut before the last ReLU."""

    def __init__(
        self, kind: str, inputs: int, width: int, stride: int, last: bool, rngs: Rngs
    ):
        """The `last` block ends in the mean over all pixels."""
        sizes, expansion, padded = KINDS[kind]
        ends = [inputs, *[width] * (len(sizes) - 1), width * expansion]
        for i, size in enumerate(sizes):
            step = stride if i == sizes.index(3) else 1
            setattr(self, f"conv{i + 1}", _conv(ends[i], ends[i + 1], size, step, rngs))
            setattr(self, f"norm{i + 1}", _norm(ends[i + 1]))
        self.shortcut = Shortcut(inputs, ends[-1], stride, padded, rngs)
        self.depth, self.last = len(sizes), last

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, inputs]` -> `[B, H', W', outputs]`, or `[B, outputs]`."""
        y = x
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"norm{i}")
            y = normalised(conv, norm, jax.nn.relu(y) if i > 1 else y, mode)
        y = jax.nn.relu(y + self.shortcut(x, mode))
        return y.mean((1, 2), dtype=jnp.float32).astype(x.dtype) if self.last else y


def make(
    variant: str | tuple = "50",
    weights: str | None = None,
    image_size: int = 224,
    seed: int = 0,
) -> Backbone:
    """A ResNet with blocks `stem`, `layer1_0`, `layer1_1` ..., and `head`.

    Args:
      variant: a name in `VARIANTS`, or the fields of a `Shape`.
      weights: the path of a state dict of torchvision or timm; None for random ones.
      image_size: height and width of the images in pixels, any; the usual weights saw
        224, and `"26"` is for 32. Colours are those of ImageNet in every variant.
      seed: of the random base.

    Raises:
      ValueError: an unknown variant or kind; in `load`, weights that do not fit.
    """
    blocks, features = _blocks(_shape(variant))

    return network.chain(
        "resnet",
        blocks,
        lambda rngs, classes: layers.Head(features, classes, rngs=rngs),
        None if weights is None else functools.partial(resnet_files.load, weights),
        seed=seed,
        input_shape=(image_size, image_size, 3),
        normalize=((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    )


def _shape(variant: str | tuple) -> Shape:
    if isinstance(variant, str | int):
        registry.check_choice("variant", str(variant), VARIANTS)
        return VARIANTS[str(variant)]
    for kind, _, _ in Shape(*variant).stages:
        registry.check_choice("kind", kind, KINDS)
    return Shape(*variant)


def _blocks(shape: Shape) -> tuple[dict[str, network.Build], int]:
    """All blocks but the head, and the width of the last one's output."""
    width = shape.width
    blocks: dict[str, network.Build] = {}
    blocks["stem"] = functools.partial(Stem, width, shape.small)
    for stage, (kind, count, inner) in enumerate(shape.stages, 1):
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            last = (stage, number) == (len(shape.stages), count - 1)
            sizes = (width, inner, stride, last)
            blocks[f"layer{stage}_{number}"] = functools.partial(Block, kind, *sizes)
            width = inner * KINDS[kind][1]
    return blocks, width


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: Rngs) -> Conv:
    padding = size // 2
    return Conv(inputs, outputs, size=size, stride=stride, padding=padding, rngs=rngs)


def _norm(channels: int) -> layers.BatchNorm:
    # 0.9 of the old statistic is kept: what PyTorch calls a momentum of 0.1.
    return layers.BatchNorm(channels, epsilon=1e-5, momentum=0.9)


def _max_pool(x: jax.Array) -> jax.Array:
    """3x3 of stride 2, by axes: XLA's own form has a slower gradient on a CPU."""
    for axis in (2, 1):
        around = [(int(a == axis),) * 2 for a in range(4)]
        padded = jnp.pad(x, around, constant_values=-jnp.inf)
        n = x.shape[axis]
        windows = [lax.slice_in_dim(padded, i, i + n, 2, axis) for i in range(3)]
        x = functools.reduce(jnp.maximum, windows)
    return x
