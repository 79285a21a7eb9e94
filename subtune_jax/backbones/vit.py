"""Vision transformers: pre-norm blocks on square patches and a class token.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929;
LayerScale: Touvron et al., arXiv:2103.17239; S/14: Oquab et al., arXiv:2304.07193.
"""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from subtune_jax import Backbone, fetch
from subtune_jax.core import registry
from subtune_jax.models import attention, layers, network, row_vectors
from subtune_jax.models.layers import Mode
from subtune_jax.models.weights import vit_files, vit_layouts


class Shape(NamedTuple):
    """What a vision transformer is made of; every MLP is four times as wide."""

    width: int
    depth: int
    heads: int
    patch: int
    layer_scale: bool = False


VARIANTS = {
    "Ti/16": Shape(192, 12, 3, 16),
    "S/16": Shape(384, 12, 6, 16),
    "B/16": Shape(768, 12, 12, 16),
    "S/14": Shape(384, 12, 6, 14, layer_scale=True),
    "B/14": Shape(768, 12, 12, 14, layer_scale=True),
}
TINY = {"variant": (16, 2, 2, 8, False), "image_size": 16}
ASSET = ("vit_s14", "vit_s_focus.onnx")  # ViT-S/14 (saliency-tuned)
COLOURS = {
    "half": ((127.5,) * 3, (127.5,) * 3),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


class Embed(nnx.Module):
    """Patches as tokens, the class token first: `[B, H, W, 3]` -> `[B, 1 + N, D]`."""

    def __init__(self, shape: Shape, image_size: int, rngs: nnx.Rngs):
        """`kernel` is `[p, p, 3, D]`, `position` `[1 + N, D]`, rows of patches."""
        side, patch, width = image_size // shape.patch, shape.patch, shape.width
        normal = nnx.initializers.normal(0.02)
        kernel = layers.LECUN(rngs.params(), (patch * patch * 3, width))
        self.kernel = nnx.Param(kernel.reshape(patch, patch, 3, width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.token = nnx.Param(normal(rngs.params(), (width,)))
        self.position = nnx.Param(normal(rngs.params(), (1 + side * side, width)))

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Pixels outside the last whole patch do not exist: `make` sees to that."""
        kernel = self.kernel[...].astype(x.dtype)
        patch, _, _, width = kernel.shape
        batch, side = x.shape[0], x.shape[1] // patch
        cut = x.reshape(batch, side, patch, side, patch, 3).swapaxes(2, 3)
        flat = cut.reshape(batch * side * side, -1) @ kernel.reshape(-1, width)
        tokens = (flat + self.bias[...].astype(x.dtype)).reshape(batch, -1, width)
        first = jnp.broadcast_to(self.token[...].astype(x.dtype), (batch, 1, width))
        table = self.position[...].astype(x.dtype)
        return jnp.concatenate([first, tokens], axis=1) + table


class Block(nnx.Module):
    """Attention, then an MLP, each added to its input: `[B, L, D]` -> the same."""

    def __init__(self, shape: Shape, tanh: bool, epsilon: float, rngs: nnx.Rngs):
        """`tanh`: GELU by its tanh formula; LayerScale starts at one."""
        width = shape.width
        self.norm1 = layers.LayerNorm(width, epsilon=epsilon)
        self.attn = attention.Attention(width, shape.heads, rngs=rngs)
        self.norm2 = layers.LayerNorm(width, epsilon=epsilon)
        self.fc1 = layers.Dense(width, 4 * width, rngs=rngs)
        self.fc2 = layers.Dense(4 * width, width, rngs=rngs)
        self.scale1 = nnx.Param(jnp.ones(width)) if shape.layer_scale else None
        self.scale2 = nnx.Param(jnp.ones(width)) if shape.layer_scale else None
        self.tanh = tanh

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """One block."""
        x = row_vectors.settled(x)
        x = row_vectors.settled(x + _scaled(self.attn(self.norm1(x)), self.scale1))
        hidden = self.fc1(self.norm2(x))
        hidden = jax.nn.gelu(hidden) if self.tanh else attention.gelu(hidden)
        return x + _scaled(self.fc2(hidden), self.scale2)


class Pool(layers.LayerNorm):
    """The class token, normalised: `[B, L, D]` -> `[B, D]`."""

    def __call__(self, x: jax.Array, mode: Mode | None = None) -> jax.Array:
        """Other tokens end here."""
        return super().__call__(x[:, 0])


class Map(layers.LayerNorm):
    """The patches, normalised: `[B, 1 + h * w, D]` -> `[B, h, w, D]`, for masks."""

    def __call__(self, x: jax.Array, mode: Mode | None = None) -> jax.Array:
        """The class token ends here; images are square, and so is the map."""
        side = math.isqrt(x.shape[1] - 1)
        return super().__call__(x[:, 1:].reshape(len(x), side, side, -1))


def make(
    variant: str | tuple = "S/16",
    weights: str | None = None,
    image_size: int = 224,
    seed: int = 0,
    gelu: str | None = None,
    epsilon: float | None = None,
    normalize: str | None = None,
) -> Backbone:
    """A ViT with blocks `embed`, `block01` ..., `norm` and `head`.

    For masks the head takes every patch instead of the class token.

    Args:
      variant: a name in `VARIANTS`, or the numbers of a `Shape`.
      weights: None for random ones; `"vit_s14"` for the bundled asset, ViT-S/14
        (saliency-tuned), of variant `"S/14"`; else a file or folder in a layout of
        `vit_layouts.LAYOUTS`. The position table is resampled to `image_size`.
      image_size: height and width of the images in pixels, a multiple of the patch.
      seed: of the random base.
      gelu: `"exact"` or `"tanh"`; None for what the weights were trained with.
      epsilon: what the layer norms add to the variance, above 0; None likewise.
      normalize: how pixels become numbers: `"half"`, in [-1, 1], or `"imagenet"`, by
        its mean and deviation; None likewise.

    Raises:
      ValueError: an unknown name, or weights that do not fit.
    """
    shape = _shape(variant, image_size)
    path = None if weights is None else _file(weights)
    layout = vit_layouts.PLAIN if path is None else vit_files.read_layout(path)
    tanh = _known(gelu or layout.gelu, "gelu", ("exact", "tanh")) == "tanh"
    colours = _known(normalize or layout.normalize, "normalize", COLOURS)
    small = layout.epsilon if epsilon is None else epsilon
    blocks: dict[str, network.Build] = {
        "embed": functools.partial(Embed, shape, image_size)
    }
    for number in range(1, shape.depth + 1):
        blocks[f"block{number:02d}"] = functools.partial(Block, shape, tanh, small)

    load = None
    if path is not None:
        load = functools.partial(vit_files.load, path, heads=shape.heads)

    def build(last: type[layers.LayerNorm]) -> Backbone:
        return network.chain(
            "vit",
            {**blocks, "norm": lambda rngs: last(shape.width, epsilon=small)},
            lambda rngs, classes: layers.Head(shape.width, classes, rngs=rngs),
            load,
            seed=seed,
            input_shape=(image_size, image_size, 3),
            normalize=COLOURS[colours],
        )

    backbone = build(Pool)
    return backbone._replace(dense=functools.partial(build, Map))


def _shape(variant: str | tuple, image_size: int) -> Shape:
    if isinstance(variant, str):
        shape = VARIANTS[_known(variant, "variant", VARIANTS)]
    else:
        shape = Shape(*variant)
    if image_size <= 0 or image_size % shape.patch:
        size = f"image_size {image_size}"
        raise ValueError(f"{size}; there are multiples of the patch, {shape.patch}")
    if shape.width % shape.heads:
        raise ValueError(f"width {shape.width} is not divisible by {shape.heads} heads")
    return shape


def _known(value: str, what: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"no {what} named {value!r}; {registry.near(value, known)}")
    return value


def _file(weights: str) -> Path:
    name, file = ASSET
    return fetch.path(name) / file if weights == name else Path(weights)


def _scaled(x: jax.Array, scale: nnx.Param | None) -> jax.Array:
    return x if scale is None else row_vectors.scale(x, scale[...].astype(x.dtype))
