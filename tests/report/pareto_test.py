"""The picture of costs: a front that nothing beats, and labels that can be read."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from subtune_jax.report import pareto

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1)
LONG = [f"encoder/{'deep' * 10}/$x_{{{number}" for number in range(5)]


def check(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()


def method(name, flops, trainable, mean=0.5):
    costs = {"flops": flops, "trainable": trainable}
    return {"method": name, "mean": mean, "std": 0.01, **costs}


METHODS = {
    "nothing": [],
    "one, free": [method("head", 0, 0)],
    "equal": [method("a", 1e9, 10), method("b", 1e9, 10)],
    "fifteen": [method(LONG[n % 5], 10.0**n, 2**n - 1, n / 20) for n in range(15)],
}


@pytest.mark.parametrize("name", METHODS)
def test_any_methods_are_drawn(name):
    check(pareto.pareto(METHODS[name]))


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    expected = [not any(beats(a, b) for a in points) for b in points]
    assert pareto.front(*zip(*points, strict=True)) == expected


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_places_on_a_logarithmic_axis_lie_within_its_ticks(costs):
    places, ticks = pareto.logarithmic(costs)
    assert min(ticks) <= min(places) and max(places) <= max(ticks)
    assert len(ticks) <= 9
    for cost, place in zip(costs, places, strict=True):
        assert place == cost if cost else ticks[place] == "0"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_labels_of_a_loose_crowd_overlap_nothing(seed):
    points = np.random.default_rng(seed).uniform(60, 740, (9, 2))
    boxes, bounds = np.full((9, 2), (60.0, 12.0)), np.array([0, 0, 800, 800.0])
    marks = np.concatenate([points - 5, points + 5], 1)
    low = pareto.places(points, boxes, marks, bounds)
    labels = np.concatenate([low, low + boxes], 1)
    own = pareto._overlap(labels, labels)
    np.testing.assert_allclose(own, np.diag(np.diag(own)), atol=1e-6)
    assert pareto._overlap(labels, marks).max() < 1e-6
    assert labels.min() >= 0 and labels.max() <= 800


def test_the_line_of_the_front_is_a_staircase():
    rows = [method("a", 1, 1, 0.2), method("b", 10, 1, 0.6), method("c", 10, 1, 0.1)]
    assert pareto._corners(rows, "flops") == [(1, 0.2), (10, 0.2), (10, 0.6)]
