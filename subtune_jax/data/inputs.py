"""From a piece to what the network sees, inside the compiled step."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Backbone
from subtune_jax.data import augment as augmentation
from subtune_jax.data.augment import Augment

Arrays = Mapping[str, jax.Array]


def labelled(
    resident: Arrays, piece: Arrays, classes: int, augment: Augment
) -> tuple[jax.Array, jax.Array]:
    """Inputs `[B, ...]`, augmented, and targets `[B, C]` or masks `[B, H, W]`."""
    inputs, labels = lookup(resident, piece)
    targets = target(labels, classes)
    if not augmentation.active(augment):
        return inputs, targets

    def single(drawn, image):
        return augmentation.single(augment, drawn, image.astype(jnp.float32))

    def mix(drawn, images, pair):
        return augmentation.mix(augment, drawn, images, pair)

    images = jax.vmap(single)(piece["drawn"], inputs)
    if targets.ndim > 2:  # masks move with their images
        moved = functools.partial(augmentation.mask, augment)
        return images, jax.vmap(moved)(piece["drawn"], targets)
    if augmentation.mixes(augment):
        others, other_labels = lookup(resident, piece, "partner")
        others = jax.vmap(single)(piece["partner_drawn"], others)
        pair = (targets, target(other_labels, classes))
        images, targets = jax.vmap(mix)(piece["drawn"], (images, others), pair)
    return images, targets


def target(labels: Any, classes: int) -> jax.Array:
    """What the loss takes: labels `[B]` as `[B, C]`, masks `[B, H, W]` as they are.

    Labels of a regression, which are floats, are `[B, 1]`.
    """
    if np.issubdtype(labels.dtype, np.floating):
        return jnp.asarray(labels)[:, None]
    return jax.nn.one_hot(labels, classes) if labels.ndim == 1 else labels


def lookup(
    resident: Arrays, piece: Arrays, which: str = ""
) -> tuple[jax.Array, jax.Array | None]:
    """Inputs and labels of a piece's rows: out of the resident set, or as sent."""
    if resident:
        where = piece[which or "index"]
        return resident["inputs"][where], resident["labels"][where]
    prefix = f"{which}_" if which else ""
    return piece[f"{prefix}inputs"], piece.get(f"{prefix}labels")


def normalize(backbone: Backbone, images: jax.Array) -> jax.Array:
    """Pixels in [0, 255] as the network expects them, float32; tokens as they are."""
    if backbone.normalize is None:
        return jnp.asarray(images)
    mean, std = (jnp.asarray(x, jnp.float32) for x in backbone.normalize)
    return (images.astype(jnp.float32) - mean) / std


def enter(backbone: Backbone, images: jax.Array, dtype: Any) -> jax.Array:
    """What the first block takes in a computation of type `dtype`."""
    x = normalize(backbone, images)
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
