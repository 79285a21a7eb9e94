"""Data sets as a network takes them: images of its size, tokens, masks.

On the host a split becomes `Examples`. Inside the compiled step a piece of a batch (see
`batches`) becomes inputs and targets, and inputs what the first block takes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Backbone, Split
from subtune_jax.data import augment, splits
from subtune_jax.data.augment import Augment

RESIDENT_BYTES = 1 << 30  # larger sets stream
Arrays = Mapping[str, jax.Array]


class Examples(NamedTuple):
    """A split as the network takes it.

    Attributes:
      labels: int32 `[N]`, of a regression float32, or masks, uint8 `[N, H, W]`, which
        are always in memory.
      inputs: `[N, ...]` of all examples, or None where they do not fit in memory.
      read: indices `[n]` -> inputs `[n, ...]`.
      lengths: int `[N]`: all beyond so many places of the first axis of an example is
        padding, which may be cut; None where nothing is.
      whole: the examples that these are a part of, None where they are all.
      places: int `[N]`, of a part: which of the whole they are.
    """

    labels: np.ndarray
    inputs: np.ndarray | None
    read: Callable[[np.ndarray], np.ndarray]
    lengths: np.ndarray | None = None
    whole: "Examples | None" = None
    places: np.ndarray | None = None


def examples(split: Split, size: int, limit: int = RESIDENT_BYTES) -> Examples:
    """The images of a split at `size` pixels square, read now if they fit in `limit`.

    Masks are brought to that size too, and all are read now.

    Raises:
      ValueError: an image or mask cannot be read; the message names its file.
    """
    from subtune_jax.data import images  # pillow is of [train], the rest is not

    def image(index: int) -> np.ndarray:
        return images.resize(split.read(int(index))["image"], size)

    count = len(split.labels)
    labels = np.asarray(split.labels, np.int32)
    if split.mask is not None:
        labels = _masks(split.mask, count, size)
    if count * size * size * 3 > limit:
        return Examples(labels, None, lambda where: np.stack([image(i) for i in where]))
    with ThreadPoolExecutor() as pool:
        return resident(np.stack(list(pool.map(image, range(count)))), labels)


def tokens(encoded: np.ndarray, labels: np.ndarray, lengths: Sequence[int]) -> Examples:
    """Examples of texts.

    Args:
      encoded: int32 `[N, L, 2]`, see `Backbone.encode`.
      labels: `[N]`.
      lengths: that batches are cut to, ascending; the last one is L or more.
    """
    longest, size = lengths[-1], encoded.shape[1]
    padded = np.pad(encoded, ((0, 0), (0, longest - size), (0, 0)))
    counts = np.count_nonzero(encoded[..., 1], axis=1)
    fitting = np.asarray(lengths)[np.searchsorted(lengths, counts)]
    return resident(padded, labels)._replace(lengths=fitting)


def _masks(read: Callable[[int], np.ndarray], count: int, size: int) -> np.ndarray:
    """Masks `[N, size, size]`."""
    from subtune_jax.data import images

    masks = np.empty((count, size, size), np.uint8)

    def resize(index: int) -> None:
        masks[index] = images.resize_mask(read(index), size)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(resize, range(count)):
            pass  # an error of a thread is raised here
    return masks


def resident(inputs: np.ndarray, labels: np.ndarray) -> Examples:
    """Examples that are in memory: `inputs` `[N, ...]`, `labels` `[N, ...]`."""
    return Examples(labels, inputs, lambda where: inputs[where])


def subset(split: Split, count: int, seed: int) -> Split:
    """A stratified subset of `count` examples; 0 keeps all."""
    if not count:
        return split
    where, mask = splits.subset(split.labels, count, seed), split.mask
    return Split(
        lambda index: split.read(int(where[index])),
        split.labels[where],
        None if mask is None else lambda index: mask(int(where[index])),
    )


def join(a: Examples, b: Examples) -> Examples:
    """The examples of `a`, then those of `b`."""
    count = len(a.labels)

    def read(where: np.ndarray) -> np.ndarray:
        where = np.asarray(where)
        first, parts = where < count, []
        for mask, source, shift in ((first, a, 0), (~first, b, count)):
            if mask.any():
                parts.append((mask, source.read(where[mask] - shift)))
        inputs = np.empty((len(where), *parts[0][1].shape[1:]), parts[0][1].dtype)
        for mask, rows in parts:
            inputs[mask] = rows
        return inputs

    lengths = None
    if a.lengths is not None and b.lengths is not None:
        lengths = np.concatenate([a.lengths, b.lengths])
    return Examples(np.concatenate([a.labels, b.labels]), None, read, lengths)


def part(examples: Examples, places: np.ndarray) -> Examples:
    """The examples at `places` `[n]`; those in memory stay there."""
    inputs, lengths = examples.inputs, examples.lengths
    if inputs is not None:
        first = places[0] if len(places) else 0
        run = np.array_equal(places, np.arange(first, first + len(places)))
        inputs = inputs[first : first + len(places)] if run else inputs[places]
    return Examples(
        labels=examples.labels[places],
        inputs=inputs,  # a run is not copied
        read=lambda where: examples.read(places[where]),
        lengths=None if lengths is None else lengths[places],
        whole=examples,
        places=places,
    )


def cut(examples: Examples) -> Examples:
    """Texts no longer than the longest of them, all of one length from then on."""
    if examples.lengths is None:
        return examples
    longest, read = int(examples.lengths.max()), examples.read
    inputs = None if examples.inputs is None else examples.inputs[:, :longest]
    return Examples(examples.labels, inputs, lambda where: read(where)[:, :longest])


def length(examples: Examples, where: np.ndarray) -> int | None:
    """What a batch of the examples `where` is cut to; None for nothing."""
    return None if examples.lengths is None else int(examples.lengths[where].max())


def labelled(
    resident: Arrays, piece: Arrays, classes: int, augmentation: Augment
) -> tuple[jax.Array, jax.Array]:
    """Inputs `[B, ...]`, augmented, and targets `[B, C]` or masks `[B, H, W]`."""
    inputs, labels = lookup(resident, piece)
    targets = target(labels, classes)
    if not augment.active(augmentation):
        return inputs, targets

    def single(drawn, image):
        return augment.single(augmentation, drawn, image.astype(jnp.float32))

    def mix(drawn, pair, pair_targets):
        return augment.mix(augmentation, drawn, pair, pair_targets)

    views = jax.vmap(single)(piece["drawn"], inputs)
    if targets.ndim > 2:  # masks move with their images
        moved = functools.partial(augment.mask, augmentation)
        return views, jax.vmap(moved)(piece["drawn"], targets)
    if augment.mixes(augmentation):
        partners, partner_labels = lookup(resident, piece, "partner")
        partners = jax.vmap(single)(piece["partner_drawn"], partners)
        both = (targets, target(partner_labels, classes))
        views, targets = jax.vmap(mix)(piece["drawn"], (views, partners), both)
    return views, targets


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
