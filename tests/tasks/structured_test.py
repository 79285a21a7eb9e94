import numpy as np
import pytest

from subtune_jax.core import registry
from subtune_jax.tasks import structured


@pytest.mark.parametrize("property", structured.CLASSES)
def test_every_property_is_balanced(property):
    task = structured.make(property, examples=480, image_size=16)
    counts = np.bincount(task.train.labels)
    assert counts.max() - counts.min() <= 1 and len(counts) == len(task.classes)


def test_the_seed_changes_the_scenes():
    one, other = (structured.make(examples=40, seed=seed) for seed in (0, 1))
    assert (one.train.read(0)["image"] != other.train.read(0)["image"]).any()


def regions(mask):
    """How many regions of True there are, by flooding; corners connect."""
    mask, count = mask.copy(), 0
    while mask.any():
        count += 1
        front = [tuple(np.argwhere(mask)[0])]
        while front:
            i, j = front.pop()
            if 0 <= i < len(mask) and 0 <= j < len(mask) and mask[i, j]:
                mask[i, j] = False
                front += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return count


def drawn(property, label, seed, wanted=None):
    """Where the shapes of one kind are, on a clean canvas of 128 x 128."""
    shapes = structured.SCENES[property](label, np.random.default_rng(seed))
    canvas = np.zeros((128, 128, 3))
    for shape in shapes:
        if wanted is None or shape[0] == wanted:
            structured._draw(canvas, shape, np.ones(3))
    return canvas[..., 0]


@pytest.mark.parametrize("label", range(structured.COUNTS))
def test_the_count_is_that_of_separate_shapes(label):
    for seed in range(3):
        assert regions(drawn("count", label, seed) > 0.25) == label + 1


@pytest.mark.parametrize("label", range(structured.GRID**2))
def test_the_ring_is_in_the_named_cell(label):
    rows, columns = np.nonzero(drawn("location", label, label, "ring") > 0.5)
    assert set(rows // 32 * 4 + columns // 32) == {label}


@pytest.mark.parametrize("label", range(structured.ANGLES))
def test_the_bar_has_the_named_angle(label):
    rows, columns = np.nonzero(drawn("orientation", label, label, "bar") > 0.5)
    _, vectors = np.linalg.eigh(np.cov(columns, rows))
    x, y = vectors[:, -1]  # along the bar
    assert np.degrees(np.arctan2(y, x)) % 180 // 15 == label


@pytest.mark.parametrize("label", range(structured.DISTANCES))
def test_the_rings_are_the_named_distance_apart(label):
    for seed in range(5):
        shapes = structured.SCENES["distance"](label, np.random.default_rng(seed))
        (_, one, *_), (_, other, *_) = [s for s in shapes if s[0] == "ring"]
        assert int((np.hypot(*(one - other)) - 0.2) / 0.1) == label
        assert min(*one, *other) > 0.07 and max(*one, *other) < 0.93


def test_an_edge_covers_its_pixels_in_part():
    canvas = np.zeros((64, 64, 3))
    structured._draw(canvas, ("disc", np.array([0.5, 0.5]), 0.25, 0.0), np.ones(3))
    assert abs(canvas[..., 0].sum() - np.pi * 16**2) < 2  # the area, in pixels
    assert ((canvas > 0.05) & (canvas < 0.95)).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"property": "cuont"}, "no property named 'cuont'; did you mean 'count'"),
        ({"image_size": 8}, "image_size=8 is too small"),
        ({"examples": 7}, "examples=7; there are 8 classes"),
    ],
)
def test_structured_refuses_what_it_cannot_draw(arguments, message):
    with pytest.raises(ValueError, match=message):
        registry.load("tasks", {"name": "structured", **arguments})
