"""Augmentation inside the compiled step, drawn for each example by its place.

The random numbers of a step are drawn on the host from (seed, step), one row an
example of the global batch, so that results depend neither on how many devices
share the batch nor on the platform, and samplers cost no compilation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CROP, FLIP, COLOUR, PASTE, SHARES, CENTRE = (
    slice(0, 4),
    4,
    slice(5, 8),
    8,
    slice(9, 11),
    slice(11, 13),
)
COLUMNS = 13


class Augment(NamedTuple):
    """What is done to training images; the zero of every field is nothing.

    Attributes:
      crop: smallest share of the area that a random crop keeps, in (0, 1]; 0: none.
      flip: mirror left and right with probability one half.
      colour: brightness, contrast and saturation change by up to this share.
      mixup: alpha of the Beta distribution of mixing weights (arXiv 1710.09412).
      cutmix: the same for pasted rectangles (arXiv 1905.04899); with both, each
        example draws one of the two.
    """

    crop: float = 0.0
    flip: bool = False
    colour: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


NONE = Augment()


def make(
    crop: float = 0.0,
    flip: bool = False,
    colour: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Augment:
    """What is done to training images; by default nothing.

    Args:
      crop: smallest share of the area that a random crop keeps, in (0, 1]; 0 for none.
      flip: whether images are mirrored left and right with probability one half.
      colour: brightness, contrast and saturation change by up to this share, 0 or more.
      mixup: alpha of the Beta distribution of mixing weights (arXiv:1710.09412), above
        0; 0 for none.
      cutmix: the same for pasted rectangles (arXiv:1905.04899); with both, each
        example draws one of the two.

    Raises:
      ValueError: a number is out of its range.
    """
    if not 0 <= crop <= 1:
        raise ValueError(f"augment crop={crop}; it must be in [0, 1]")
    for name, value in (("colour", colour), ("mixup", mixup), ("cutmix", cutmix)):
        if value < 0:
            raise ValueError(f"augment {name}={value}; it must be 0 or more")
    return Augment(crop, flip, colour, mixup, cutmix)


def active(augment: Augment) -> bool:
    """Does it change anything?"""
    return augment != NONE


def mixes(augment: Augment) -> bool:
    """Does it need a second image for every example?"""
    return bool(augment.mixup or augment.cutmix)


def draw(augment: Augment, seed: int, step: int, count: int) -> np.ndarray:
    """The random numbers of a step, float32 `[count, COLUMNS]`.

    All uniform in [0, 1), but for the two shares that are kept of an image: one of
    mixup and one of cutmix, Beta(alpha, alpha).
    """
    rng = np.random.default_rng([seed, step, 1])
    drawn = rng.random((count, COLUMNS))
    for column, alpha in enumerate((augment.mixup, augment.cutmix), SHARES.start):
        drawn[:, column] = rng.beta(alpha, alpha, count) if alpha else 1.0
    return drawn.astype(np.float32)


def single(augment: Augment, drawn: jax.Array, image: jax.Array) -> jax.Array:
    """One augmented image, `[H, W, 3]` in [0, 255], float; mixing aside."""
    if augment.crop:
        image = _crop(augment.crop, drawn[CROP], image)
    if augment.flip:
        image = jnp.where(drawn[FLIP] < 0.5, image[:, ::-1], image)
    if augment.colour:
        image = _colour(augment.colour, drawn[COLOUR], image)
    return image


def mask(augment: Augment, drawn: jax.Array, mask: jax.Array) -> jax.Array:
    """The mask `[H, W]` of the image that `single` gives; colour leaves it alone.

    Of each pixel the nearest one of the original.
    """
    if augment.crop:
        zoom, shift = _part(augment.crop, drawn[CROP], mask.shape)
        rows, columns = (
            jnp.clip(jnp.floor((jnp.arange(n) + 0.5 - to) / by), 0, n - 1).astype(int)
            for n, by, to in zip(mask.shape, zoom, shift, strict=True)
        )
        mask = mask[rows[:, None], columns]
    if augment.flip:
        mask = jnp.where(drawn[FLIP] < 0.5, mask[:, ::-1], mask)
    return mask


def mix(
    augment: Augment,
    drawn: jax.Array,
    images: tuple[jax.Array, jax.Array],
    targets: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """One image and target out of two: a blend, or a rectangle of one in the other."""
    chance = 0.5 if augment.mixup and augment.cutmix else float(bool(augment.cutmix))
    blend, kept = drawn[SHARES]
    height, width, _ = images[0].shape
    box = _rectangle(1 - kept, drawn[CENTRE], height, width)
    share = jnp.where(drawn[PASTE] < chance, 1.0 - box, blend)
    image = share * images[0] + (1 - share) * images[1]
    return image, share.mean() * targets[0] + (1 - share.mean()) * targets[1]


def _crop(smallest: float, drawn: jax.Array, image: jax.Array) -> jax.Array:
    """A random part, of aspect 3/4 to 4/3, resized back to the whole."""
    zoom, shift = _part(smallest, drawn, image.shape[:2])
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), zoom, shift, "linear", antialias=False
    )


def _part(
    smallest: float, drawn: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Of height and width: the factor, then the shift, that make the part the whole."""
    size = jnp.asarray(shape, jnp.float32)
    area = smallest + (1 - smallest) * drawn[0]
    aspect = jnp.exp(jnp.log(4 / 3) * (2 * drawn[1] - 1))
    share = jnp.sqrt(area * jnp.stack([1 / aspect, aspect]))  # of height and width
    part = jnp.clip(share, 0.0, 1.0) * size
    zoom = size / part
    return zoom, -drawn[2:4] * (size - part) * zoom


def _colour(strength: float, drawn: jax.Array, image: jax.Array) -> jax.Array:
    low, high = max(0.0, 1 - strength), 1 + strength
    bright, contrast, saturation = low + (high - low) * drawn
    image = image * bright
    grey = image @ jnp.asarray([0.299, 0.587, 0.114], image.dtype)
    image = contrast * image + (1 - contrast) * grey.mean()
    image = saturation * image + (1 - saturation) * grey[..., None]
    return jnp.clip(image, 0.0, 255.0)


def _rectangle(
    area: jax.Array, centre: jax.Array, height: int, width: int
) -> jax.Array:
    """`[H, W, 1]`: ones in a rectangle of that share of the area, zeros elsewhere.

    It is cut off where it leaves the image.
    """
    size = jnp.asarray([height, width], jnp.float32)
    half = jnp.sqrt(area) * size / 2
    low, high = centre * size - half, centre * size + half
    rows, columns = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    inside_rows = (low[0] <= rows) & (rows < high[0])
    inside_columns = (low[1] <= columns) & (columns < high[1])
    return (inside_rows[:, None] & inside_columns)[..., None].astype(jnp.float32)
