"""Drawn scenes of a colonoscopy: which pixels belong to a polyp?

They stand in for Kvasir-SEG, on which GPS tunes a segmentation network. Every scene is
drawn when it is read, from the seed and its index alone: pink tissue with folds, blood
vessels and a dark lumen, one or two polyps of nearly its colour, some raised and some
flat, told by their shading and their rim, and reflections of the lamp on both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from subtune_jax import Split, Task
from subtune_jax.data import dense, splits

TINY = {"examples": 60, "image_size": 16}  # arguments of the smallest useful one
CLASSES = ("background", "polyp")
TISSUE = np.array([0.80, 0.47, 0.41])
ALONE = 0.7  # share of scenes with one polyp


def make(
    examples: int = 600,
    image_size: int = 112,
    raised: Sequence[float] = (0.3, 0.9),
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    seed: int = 0,
) -> Task:
    """The task of finding polyps: background and polyp, by mDice, mIoU beside it.

    Args:
      examples: how many scenes there are in all three splits together, 3 or more.
      image_size: height and width in pixels, 16 or more.
      raised: the least and the most that polyps stand out by colour, light and shade:
        0 not at all, 1 as round ones do; more exaggerates.
      fractions: of training, validation and test, which sum to 1.
      seed: of the scenes and of the cut.

    Raises:
      ValueError: the images are smaller than 16, there are fewer than three examples,
        `fractions` are not three that sum to 1, or `raised` is no range.
    """
    if image_size < 16:
        raise ValueError(f"image_size={image_size} is too small to draw on; 16 is not")
    if examples < 3:
        raise ValueError(f"examples={examples}; there are three splits")
    if len(fractions) != 3:
        what = f"fractions={tuple(fractions)}"
        raise ValueError(f"{what}; there are three: train, validation and test")
    if len(raised) != 2 or not 0 <= raised[0] <= raised[1]:
        raise ValueError(f"raised={tuple(raised)}; it is the least and the most")
    pieces = splits.stratified(np.zeros(examples), [*map(float, fractions)], seed)

    def part(indices: np.ndarray) -> Split:
        def drawn(index: int) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng([seed, indices[index]])
            return _scene(image_size, (raised[0], raised[1]), rng)

        return Split(
            lambda index: {"image": drawn(index)[0]},
            np.zeros(len(indices), np.int32),
            lambda index: drawn(index)[1],
        )

    return dense.task("polyps", CLASSES, *map(part, pieces))


class Polyp(NamedTuple):
    """A bump, in units of the side.

    `wobble` are harmonics 2 to 4 of its outline; of light and shade there is the share
    `raised` of what a round one has.
    """

    centre: np.ndarray
    radii: np.ndarray
    angle: float
    wobble: np.ndarray
    colour: np.ndarray
    raised: float


def _scene(
    size: int, raised: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 image `[size, size, 3]` and mask `[size, size]`."""
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    lamp, colour = rng.uniform(0.3, 0.7, 2), TISSUE + rng.normal(0, 0.03, 3)
    canvas = colour * _tissue(x, y, rng)
    mask = np.zeros((size, size), np.uint8)
    for _ in range(1 if rng.random() < ALONE else 2):
        polyp = _polyp(colour, rng.uniform(*raised), rng)
        inside = _depth(polyp, x, y)
        _lay(canvas, polyp, inside, lamp, size)
        mask[inside > 0] = 1
    light = 1.15 - 0.9 * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2)
    canvas *= light[..., None]
    _reflect(canvas, x, y, rng)
    canvas += rng.normal(0.0, 0.015, canvas.shape)
    return (np.clip(canvas, 0.0, 1.0) * 255 + 0.5).astype(np.uint8), mask


def _tissue(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Folds around a dark lumen, blotches and vessels: factors `[H, W, 3]`."""
    lumen = rng.uniform(-0.2, 1.2, 2)
    away = np.hypot(x - lumen[0], y - lumen[1])
    bent = away + 0.05 * _smooth(len(x), 4, rng)
    folds = np.cos(2 * np.pi * bent * rng.uniform(2, 4) + rng.uniform(0, 2 * np.pi))
    shade = 1 + 0.10 * folds - 0.5 * np.exp(-((away / 0.25) ** 2))
    shade += 0.06 * _smooth(len(x), 8, rng)
    vessels = np.exp(-((_smooth(len(x), 6, rng) / 0.06) ** 2))
    red = 1 - 0.18 * vessels
    return np.stack([shade, shade * red, shade * red], axis=-1)


def _smooth(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """`[size, size]`: normal numbers on a grid, and straight lines between them."""
    grid = rng.normal(size=(cells, cells, 1))
    return dense.stretch(grid, (size, size))[..., 0]


def _polyp(tissue: np.ndarray, raised: float, rng: np.random.Generator) -> Polyp:
    return Polyp(
        centre=rng.uniform(0.2, 0.8, 2),
        radii=rng.uniform(0.09, 0.24, 2),
        angle=rng.uniform(0, np.pi),
        wobble=rng.normal(0, 0.04, (3, 2)),
        colour=tissue * (1 + raised * rng.normal([0.02, -0.06, -0.04], 0.04)),
        raised=raised,
    )


def _depth(polyp: Polyp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 in its middle, 0 at its outline, negative outside."""
    dx, dy = x - polyp.centre[0], y - polyp.centre[1]
    u = (dx * np.cos(polyp.angle) + dy * np.sin(polyp.angle)) / polyp.radii[0]
    v = (dy * np.cos(polyp.angle) - dx * np.sin(polyp.angle)) / polyp.radii[1]
    turn, outline = np.arctan2(v, u), np.ones_like(u)
    for number, (cosine, sine) in enumerate(polyp.wobble, 2):
        outline += cosine * np.cos(number * turn) + sine * np.sin(number * turn)
    return 1 - np.hypot(u, v) / np.maximum(outline, 0.5)


def _lay(
    canvas: np.ndarray, polyp: Polyp, depth: np.ndarray, lamp: np.ndarray, size: int
) -> None:
    """Blends a polyp into the tissue: a lit dome, a dark rim, a shadow around it."""
    edge = polyp.radii.min()  # depth falls by one over about that length
    cover = np.clip(0.5 + depth * edge * size, 0, 1)[..., None]
    dome = 0.18 * np.sqrt(np.clip(depth, 0, 1)) - 0.22 * np.exp(-((depth / 0.12) ** 2))
    texture = canvas.mean(-1) / polyp.colour.mean()  # folds go on below a flat polyp
    shade = 1 + np.maximum(1 - polyp.raised, 0) * (texture - 1)
    lit = polyp.colour * ((1 + polyp.raised * dome) * shade)[..., None]
    far = np.linalg.norm(polyp.centre - lamp)
    near = np.exp(-((np.minimum(depth, 0) / 0.25) ** 2))
    shadow = polyp.raised * (0.10 + 0.15 * far) * near
    canvas *= 1 - shadow[..., None]
    canvas += cover * (lit - canvas)


def _reflect(
    canvas: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> None:
    """Some small reflections of the lamp."""
    for _ in range(rng.integers(2, 7)):
        at, radii = rng.uniform(0.1, 0.9, 2), rng.uniform(0.008, 0.03, 2)
        spot = np.exp(-(((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2))
        canvas += spot[..., None] * (1.0 - canvas)
