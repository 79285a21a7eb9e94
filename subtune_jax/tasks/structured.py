"""Drawn scenes with a property to name: a count, a place, an angle or a distance.

They stand in for VTAB's structured tasks, where pretrained features fit worst. Every
image is drawn when it is read, from the seed and its index alone: shapes of random
colour on a random ground, with thin lines across and noise on top.
"""

from collections.abc import Sequence

import numpy as np

from subtune_jax import Task
from subtune_jax.core import registry
from subtune_jax.data import splits

TINY = {"examples": 80, "image_size": 16}  # arguments of the smallest useful one
GRID = 4  # scenes are laid out in 4 x 4 cells, one shape a cell: none is covered
COUNTS = 8
ANGLES = 12
DISTANCES = 6
PLAIN = ("disc", "square", "triangle")
CLASSES = {
    "count": tuple(map(str, range(1, COUNTS + 1))),
    "location": tuple([f"row {i} column {j}" for i, j in np.ndindex(GRID, GRID)]),
    "orientation": tuple([f"{180 * i // ANGLES} degrees" for i in range(ANGLES)]),
    "distance": tuple(map(str, range(DISTANCES))),
}


def make(
    property: str = "count",
    examples: int = 2000,
    image_size: int = 64,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    seed: int = 0,
) -> Task:
    """The task of naming one property; all classes are equally frequent.

    count: how many shapes there are, 1 to 8. location: the cell of a 4 x 4 grid with
    the ring. orientation: the angle of the bar, rounded down to a multiple of 15
    degrees, clockwise from horizontal. distance: how far the two rings are apart, in
    six steps.

    Args:
      property: "count", "location", "orientation" or "distance".
      examples: how many scenes there are in all three splits together, at least as many
        as there are classes.
      image_size: height and width in pixels, 16 or more.
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the scenes and of the cut.

    Raises:
      ValueError: there is no such property, the images are smaller than 16, or there
        are fewer examples than classes.
    """
    if property not in CLASSES:
        known = registry.near(property, CLASSES)
        raise ValueError(f"no property named {property!r}; {known}")
    if image_size < 16:
        raise ValueError(f"image_size={image_size} is too small to draw on; 16 is not")
    classes = CLASSES[property]
    if examples < len(classes):
        raise ValueError(f"examples={examples}; there are {len(classes)} classes")

    def read(index: int) -> dict[str, np.ndarray]:
        label = index % len(classes)
        rng = np.random.default_rng([seed, list(CLASSES).index(property), index])
        return {"image": _scene(property, label, image_size, rng)}

    labels = np.arange(examples) % len(classes)
    name = "structured"
    return splits.task(name, classes, read, labels, fractions=fractions, seed=seed)


def _scene(
    property: str, label: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    """uint8 `[size, size, 3]`; places and lengths are in units of the side."""
    ground = rng.uniform(0.0, 1.0, 3)
    canvas = np.broadcast_to(ground, (size, size, 3)).copy()
    for _ in range(rng.integers(1, 4)):
        line = ("bar", rng.uniform(0, 1, 2), 1.0, rng.uniform(0, np.pi))
        _draw(canvas, line, _colour(rng, ground), width=0.25 / size)
    for shape in SCENES[property](label, rng):
        _draw(canvas, shape, _colour(rng, ground))
    canvas += rng.normal(0.0, 0.03, canvas.shape)
    return (np.clip(canvas, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


Shape = tuple[str, np.ndarray, float, float]  # kind, centre (x, y), radius, angle


def _count(label: int, rng: np.random.Generator) -> list[Shape]:
    cells = rng.permutation(GRID * GRID)[: label + 1]
    return [_in_cell(rng.choice(PLAIN), cell, rng) for cell in cells]


def _location(label: int, rng: np.random.Generator) -> list[Shape]:
    others = np.delete(np.arange(GRID * GRID), label)
    cells = rng.permutation(others)[: rng.integers(2, 8)]
    shapes = [_in_cell(rng.choice(PLAIN), cell, rng) for cell in cells]
    return [*shapes, _in_cell("ring", label, rng)]


def _orientation(label: int, rng: np.random.Generator) -> list[Shape]:
    cells = rng.permutation(GRID * GRID)[: rng.integers(2, 6)]
    shapes = [_in_cell(rng.choice(PLAIN), cell, rng) for cell in cells]
    angle = (label + rng.uniform(0.1, 0.9)) * np.pi / ANGLES
    return [*shapes, ("bar", rng.uniform(0.35, 0.65, 2), 0.25, angle)]


def _distance(label: int, rng: np.random.Generator) -> list[Shape]:
    cells = rng.permutation(GRID * GRID)[: rng.integers(2, 6)]
    shapes = [_in_cell(rng.choice(PLAIN), cell, rng) for cell in cells]
    apart = 0.2 + 0.1 * (label + rng.uniform(0.1, 0.9))
    angle = rng.uniform(0, 2 * np.pi)
    half = apart / 2 * np.array([np.cos(angle), np.sin(angle)])
    room = 0.5 - 0.08 - np.abs(half)  # both rings stay inside
    centre = 0.5 + rng.uniform(-1, 1, 2) * room
    rings = [("ring", centre + side * half, 0.07, 0.0) for side in (-1, 1)]
    return [*shapes, *rings]


SCENES = {
    "count": _count,
    "location": _location,
    "orientation": _orientation,
    "distance": _distance,
}


def _in_cell(kind: str, cell: int, rng: np.random.Generator) -> Shape:
    """A shape somewhere in its cell, wholly inside and not touching the next."""
    radius = rng.uniform(0.06, 0.1)
    play = 0.5 / GRID - radius - 0.01
    corner = np.array([cell % GRID, cell // GRID]) / GRID
    centre = corner + 0.5 / GRID + rng.uniform(-play, play, 2)
    return str(kind), centre, radius, rng.uniform(0, 2 * np.pi)


def _colour(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A colour that stands out from the ground."""
    while True:
        colour = rng.uniform(0.0, 1.0, 3)
        if np.abs(colour - ground).max() > 0.4:
            return colour


def _draw(
    canvas: np.ndarray, shape: Shape, colour: np.ndarray, width: float = 0.03
) -> None:
    """Blends `shape` into `canvas`; pixels at its edge are covered in part."""
    kind, centre, radius, angle = shape
    size = len(canvas)
    axis = (np.arange(size) + 0.5) / size
    x, y = axis[None, :] - centre[0], axis[:, None] - centre[1]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    outside = {  # the distance to the shape, negative inside
        "disc": lambda: np.hypot(u, v) - radius,
        "ring": lambda: np.abs(np.hypot(u, v) - radius + 0.015) - 0.015,
        "square": lambda: np.maximum(np.abs(u), np.abs(v)) - radius / np.sqrt(2),
        "triangle": lambda: (
            np.maximum(-u, (u + np.sqrt(3) * np.abs(v)) / 2) - radius / 2
        ),
        "bar": lambda: np.maximum(np.abs(u) - radius, np.abs(v) - width),
    }[kind]()
    cover = np.clip(0.5 - outside * size, 0.0, 1.0)[..., None]
    canvas += cover * (colour - canvas)
