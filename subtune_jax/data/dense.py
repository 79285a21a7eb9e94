"""Dense prediction: a class for every pixel. The loss, the metrics and the task.

A mask is uint8 `[H, W]`: of each pixel its class in [0, C), or `IGNORED`, and such a
pixel counts in no loss and no metric. A network answers at the resolution of its last
map, logits `[B, h, w, C]`; they are brought to that of the mask where they are read,
so that the answers for a whole split fit in memory.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Split, Task

IGNORED = 255


def task(
    name: str, classes: Sequence[str], train: Split, validation: Split, test: Split
) -> Task:
    """The `Task` of three splits that have masks: mDice, and mIoU beside it.

    Raises:
      ValueError: there are fewer than two classes, or as many as `IGNORED` and more.
    """
    if not 2 <= len(classes) <= IGNORED:
        raise ValueError(f"{len(classes)} classes; masks hold 2 to {IGNORED}")
    return Task(
        name,
        tuple(classes),
        train,
        validation,
        test,
        loss=cross_entropy,
        metric_name="mDice",
        metric=mean_dice,
        also={"mIoU": mean_iou},
    )


def values(
    name: str, classes: Sequence[str], stored: Sequence[int], ignored: Sequence[int]
) -> tuple[int, ...]:
    """The values of stored masks that stand for `classes`: as given, or 0, 1 and so on.

    Raises:
      ValueError: there are not as many as classes, or one is twice there or outside
        [0, 255]; `name` is in the message.
    """
    known = tuple(stored) or tuple(range(len(classes)))
    both = [*known, *ignored]
    if len(known) != len(classes):
        raise ValueError(f"{name} values={known}; there are {len(classes)} classes")
    if len(set(both)) < len(both) or not all(0 <= value <= 255 for value in both):
        what = f"{name} values={known}, ignored={tuple(ignored)}"
        raise ValueError(f"{what}; each must be there once, in [0, 255]")
    return known


def recoded(
    mask: np.ndarray, name: str, values: Sequence[int], ignored: Sequence[int]
) -> np.ndarray:
    """A mask as stored, integers `[H, W]`, in classes.

    Args:
      mask: as stored.
      name: where the mask stands.
      values: that stand for the classes, in their order.
      ignored: that stand for ignored pixels; 255 does too, unless it is a class.

    Raises:
      ValueError: there is another value.
    """
    table = np.full(256, -1)
    table[[IGNORED, *ignored]] = IGNORED
    table[list(values)] = np.arange(len(values))
    classes = table[mask]
    if (classes < 0).any():
        known = f"classes are {tuple(values)}, ignored are {(*ignored, IGNORED)}"
        raise ValueError(f"{name} holds the value {mask[classes < 0][0]}; {known}")
    return classes.astype(np.uint8)


def cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """The mean over an image's known pixels of their cross-entropy in nats, `[B]`.

    Every image weighs the same, however much of it is ignored; one without a known
    pixel loses nothing.

    Args:
      logits: `[B, h, w, C]`.
      masks: uint8 `[B, H, W]`.
    """
    log_p = jax.nn.log_softmax(upsample(logits, masks.shape[1:]))
    # Neither a gather, whose gradient is a scatter, nor a one-hot array to keep.
    true = masks[..., None] == jnp.arange(logits.shape[-1])
    lost = -jnp.sum(jnp.where(true, log_p, 0.0), axis=(1, 2, 3))
    return lost / _known(masks)


def accuracy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Share of an image's known pixels whose largest logit is at their class, `[B]`."""
    guess = jnp.argmax(upsample(logits, masks.shape[1:]), -1)
    return jnp.sum(guess == masks, axis=(1, 2)) / _known(masks)


def upsample(logits: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Bilinear, pixel centres at halves: `[B, h, w, C]` -> float32 `[B, H, W, C]`."""
    tall, wide = (_weights(*pair) for pair in zip(size, logits.shape[1:3], strict=True))
    whole = logits.astype(jnp.float32)
    return jnp.einsum("ih,bhwc,jw->bijc", jnp.asarray(tall), whole, jnp.asarray(wide))


def guess(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The class of each pixel, uint8 `[H, W]`, by an image's logits `[h, w, C]`."""
    return stretch(logits, size).argmax(-1).astype(np.uint8)


def stretch(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """`upsample` of one array, `[h, w, C]` -> float32 `[H, W, C]`, without JAX."""
    tall, wide = (_weights(*pair) for pair in zip(size, values.shape[:2], strict=True))
    rows = np.tensordot(tall, values.astype(np.float32), (1, 0))
    return np.tensordot(rows, wide, (1, 1)).swapaxes(1, 2)


def confusion(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixel counts `[C, C]` of one image: rows are true classes, columns guesses."""
    classes, known = logits.shape[-1], mask != IGNORED
    place = mask[known].astype(int) * classes + guess(logits, mask.shape)[known]
    return np.bincount(place, minlength=classes**2).reshape(classes, classes)


def total(logits: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """`confusion` summed over all images: `[N, h, w, C]` and `[N, H, W]`."""
    classes = logits.shape[-1]
    pairs = zip(logits, masks, strict=True)
    return sum((confusion(*pair) for pair in pairs), np.zeros((classes, classes), int))


def mean_iou(logits: np.ndarray, masks: np.ndarray) -> float:
    """mIoU: the mean over classes of intersection over union, in [0, 1].

    Pixels of all images are counted together first. A class that is neither there nor
    guessed is left out of the mean.
    """
    counts = total(logits, masks)
    both = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - both
    return float(np.mean(both[union > 0] / union[union > 0])) if union.any() else 0.0


def mean_dice(logits: np.ndarray, masks: np.ndarray) -> float:
    """mDice: the mean of the Dice coefficient over images and classes, in [0, 1].

    Class 0 is the background and does not count. An image that neither holds a class
    nor is guessed to counts 1 for it.

    The mean over images is that of Fan et al., "PraNet", arXiv:2006.11392, whose
    released evaluation takes it at 256 thresholds of one map besides; here the class
    of the largest logit is the guess.
    """
    pairs = zip(logits, masks, strict=True)
    return float(np.mean([dice(confusion(*pair))[1:].mean() for pair in pairs]))


def dice(counts: np.ndarray) -> np.ndarray:
    """The Dice coefficient of each class, `[C]`, of one image's `confusion`."""
    sizes = counts.sum(0) + counts.sum(1)
    return np.where(sizes > 0, 2 * np.diag(counts) / np.maximum(sizes, 1), 1.0)


def _known(masks: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(masks != IGNORED, axis=(1, 2)), 1)


def _weights(size: int, small: int) -> np.ndarray:
    """`[size, small]`: what each of `small` values gives to each of `size` places."""
    place = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    near = 1 - np.abs(place[:, None] - np.arange(small))
    return np.maximum(near, 0).astype(np.float32)
