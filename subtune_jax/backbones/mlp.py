"""A multi-layer perceptron on flattened pixels, for tests and small images."""

import functools
import itertools
from collections.abc import Sequence

import jax
from flax import nnx

from subtune_jax import Backbone
from subtune_jax.models import layers, network
from subtune_jax.models.layers import Mode

TINY = {"image_size": 8, "widths": (16, 16)}  # arguments of the smallest useful one


class Hidden(nnx.Module):
    """Dense, batch normalisation, ReLU: `[B, ...]` -> `[B, width]`."""

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs):
        """Flattens whatever comes in to `inputs` numbers."""
        # The normalisation that follows would cancel a bias.
        self.dense = layers.Dense(inputs, width, rngs=rngs, bias=False)
        self.norm = layers.BatchNorm(width, epsilon=1e-5, momentum=0.9)

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """One hidden layer."""
        return jax.nn.relu(self.norm(self.dense(x.reshape(len(x), -1)), mode))


def make(
    image_size: int = 28, widths: Sequence[int] = (256, 256), seed: int = 0
) -> Backbone:
    """An MLP with one block a hidden layer, `hidden01` and so on.

    Args:
      image_size: height and width of the images in pixels, 1 or more.
      widths: units of each hidden layer, 1 or more.
      seed: of the random base; there are no pretrained weights.
    """
    sizes = (image_size * image_size * 3, *widths)
    blocks: dict[str, network.Build] = {}
    for number, shape in enumerate(itertools.pairwise(sizes), 1):
        blocks[f"hidden{number:02d}"] = functools.partial(Hidden, *shape)
    return network.chain(
        "mlp",
        blocks,
        lambda rngs, classes: layers.Head(sizes[-1], classes, rngs=rngs),
        seed=seed,
        input_shape=(image_size, image_size, 3),
        normalize=((127.5,) * 3, (127.5,) * 3),
    )
