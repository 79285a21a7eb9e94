"""Traced choices against a stable sort by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.selection import top_k_traced

SIZE = 12
TINIEST = float(np.finfo(np.float32).smallest_subnormal)
FEW = [-np.inf, -2.0, -TINIEST, -0.0, 0.0, TINIEST, 2 * TINIEST, 1.0, 2.0, np.inf]
COUNTS = (0, 5, SIZE)
COMPILED = {
    count: jax.jit(
        lambda scores, count=count: (
            top_k_traced.mask(scores, count),
            top_k_traced.positions(scores, count),
        )
    )
    for count in COUNTS
}


def literal(scores, count):
    """The first positions of a stable descending sort."""
    order = np.argsort(-scores.astype(np.float64).ravel(), kind="stable")
    marks = np.zeros(scores.size, bool)
    marks[order[:count]] = True
    return marks.reshape(scores.shape)


def assert_literal(scores, count):
    scores = np.asarray(scores, np.float32)
    marks, places = COMPILED[count](scores)
    expected = literal(scores, count)
    np.testing.assert_array_equal(marks, expected)
    assert places.dtype == jnp.int32
    np.testing.assert_array_equal(places, np.flatnonzero(expected))


@pytest.mark.parametrize("count", COUNTS)
@given(scores=st.lists(st.sampled_from(FEW), min_size=SIZE, max_size=SIZE))
@settings(max_examples=50, deadline=None)
def test_ties_go_to_the_first(count, scores):
    assert_literal(scores, count)


@pytest.mark.parametrize("count", COUNTS)
@given(
    scores=st.lists(st.floats(width=32, allow_nan=False), min_size=SIZE, max_size=SIZE)
)
@settings(max_examples=50, deadline=None)
def test_any_floats_are_ranked_as_numpy_ranks_them(count, scores):
    assert_literal(scores, count)


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_many_elements_with_many_ties(levels):
    scores = np.random.default_rng(0).integers(0, levels, (40, 50, 3))
    scores = scores.astype(np.float32)
    for count in (1, 4_200, 5_999):
        marks = jax.jit(top_k_traced.mask, static_argnums=1)(scores, count)
        np.testing.assert_array_equal(marks, literal(scores, count))


def test_many_arrays_are_each_as_one_alone():
    shapes = {"b": (6, 5), "a": (5, 6), "c": (30,), "d": (4, 4), "e": (30, 1)}
    counts = {"b": 7, "a": 7, "c": 7, "d": 7, "e": 8}
    rng = np.random.default_rng(0)
    scores = {p: np.float32(rng.integers(0, 5, shape)) for p, shape in shapes.items()}
    marks = jax.jit(lambda arrays: top_k_traced.masks(arrays, counts))(scores)
    assert marks.keys() == shapes.keys()
    for path, flags in marks.items():
        np.testing.assert_array_equal(flags, literal(scores[path], counts[path]))


def test_it_is_the_same_under_vmap_and_in_a_branch():
    scores = np.random.default_rng(0).integers(0, 4, (6, 5, 2)).astype(np.float32)

    @jax.jit
    def choose(wanted, scores):
        def marks():
            return jax.vmap(lambda each: top_k_traced.mask(each, 3))(scores)

        def places():
            return jax.vmap(lambda each: top_k_traced.positions(each, 3))(scores)

        return (
            jax.lax.cond(wanted, marks, lambda: scores > 9),
            jax.lax.cond(wanted, places, lambda: jnp.zeros((6, 3), jnp.int32)),
        )

    marks, places = choose(True, scores)
    for each, flags, where in zip(scores, marks, places, strict=True):
        np.testing.assert_array_equal(flags, literal(each, 3))
        np.testing.assert_array_equal(where, np.flatnonzero(literal(each, 3)))
    assert not np.any(choose(False, scores)[0])


def test_more_elements_than_float32_can_count_are_counted():
    assert top_k_traced._number(jnp.ones(2**24 + 3, bool)) == 2**24 + 3


def test_a_nan_ranks_beyond_the_infinity_of_its_sign():
    scores = np.array([np.inf, -np.nan, np.nan, 0.0, -np.inf], np.float32)
    scores[1] = np.copysign(np.float32(np.nan), -1)
    for count, expected in [(1, [2]), (2, [0, 2]), (4, [0, 2, 3, 4])]:
        np.testing.assert_array_equal(top_k_traced.positions(scores, count), expected)


def test_nothing_can_be_chosen_from():
    nothing = jnp.zeros((0, 3))
    assert top_k_traced.mask(nothing, 0).shape == (0, 3)
    assert top_k_traced.positions(nothing, 0).shape == (0,)


@pytest.mark.parametrize("count", [-1, 7])
@pytest.mark.parametrize("choose", [top_k_traced.mask, top_k_traced.positions])
def test_more_than_there_is_is_refused(choose, count):
    with pytest.raises(ValueError, match=rf"count={count} is outside \[0, 6\]"):
        choose(jnp.zeros((2, 3)), count)
