"""Promises of choosing, against sorting in plain Python."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.core import trees
from subtune_jax.delta import folder, leaves
from subtune_jax.selection import choose, score_arrays, top_k

AXES = {"attn/query": (1, 2), "attn/out": (-1,)}
VALUES = [
    [0.0, 1.0],
    [-0.0, 0.0, -1.0, np.inf, -np.inf],
    [0.5],  # all equal
    [-np.inf, -3.0, -2.0],
    None,  # normal
]


@st.composite
def score_trees(draw):
    """Trees with many ties, infinities, negative scores and several types."""
    sizes = st.integers(1, 5)
    i, o, h, d = (draw(sizes) for _ in range(4))
    shapes = {
        "attn/query": (i, h, d),
        "attn/out": (h, d, o),
        "attn-2/kernel": (i, o),  # sorts before "attn/..." by path, after by keys
        "conv/kernel": (3, 3, i, o),
        "conv/bias": (o,),
        "scale": (),
    }
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    values = draw(st.sampled_from(VALUES))
    kind = draw(st.sampled_from([np.float32, np.float64, np.float16, jnp.bfloat16]))

    def leaf(shape):
        drawn = rng.normal(size=shape) if values is None else rng.choice(values, shape)
        leaf = np.asarray(drawn).astype(kind)
        return jnp.asarray(leaf) if kind != np.float64 and rng.random() < 0.5 else leaf

    return trees.nest({path: leaf(shape) for path, shape in shapes.items()})


def first_best(values, count):
    """Positions of the `count` largest, ties to the first: the slow definition."""
    values = [float(value) for value in values]
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]


def neurons(score, axes):
    """Flat positions of the inputs of every neuron, each in ascending order."""
    axes = [axis % score.ndim for axis in axes]
    groups = {}
    for flat, index in enumerate(np.ndindex(score.shape)):
        groups.setdefault(tuple(index[axis] for axis in axes), []).append(flat)
    return groups.values()


def slow_per_neuron(score, axes, k_of):
    marks = np.zeros(score.size, bool)
    if score.ndim < 2:
        return marks.reshape(score.shape)
    for inputs in neurons(score, axes):
        values = score.ravel()[inputs]
        marks[[inputs[i] for i in first_best(values, k_of(len(inputs)))]] = True
    return marks.reshape(score.shape)


def assert_masks(mask, scores, expected):
    assert jax.tree.structure(mask) == jax.tree.structure(scores)
    flat = trees.flatten(mask)
    for path, score in trees.flatten(scores).items():
        assert isinstance(flat[path], np.ndarray) and flat[path].dtype == bool
        assert flat[path].shape == score.shape
        np.testing.assert_array_equal(flat[path], expected[path], err_msg=path)


def arrays(scores):
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(scores).items()}


@settings(deadline=None, max_examples=80)
@given(score_trees(), st.data())
def test_top_per_neuron_keeps_the_k_best_inputs_of_each_output(scores, data):
    flat = arrays(scores)
    fan_ins = [
        len(next(iter(neurons(score, AXES.get(path, (-1,))))))
        for path, score in flat.items()
        if score.ndim > 1
    ]
    k = data.draw(st.integers(1, min(fan_ins)))
    expected = {
        path: slow_per_neuron(score, AXES.get(path, (-1,)), lambda _: k)
        for path, score in flat.items()
    }
    assert_masks(choose.top_per_neuron(scores, k, AXES), scores, expected)


@settings(deadline=None, max_examples=80)
@given(score_trees(), st.floats(0, 1))
def test_top_per_array_keeps_the_best_share_of_each_array(scores, fraction):
    expected = {}
    for path, score in arrays(scores).items():
        number = int(fraction * score.size + 0.5)
        number = max(number, 1) if fraction > 0 else 0
        marks = np.zeros(score.size, bool)
        marks[first_best(score.ravel(), number)] = True
        expected[path] = marks.reshape(score.shape)
    assert_masks(choose.top_per_array(scores, fraction), scores, expected)


def slow_overall(flat, count):
    joined = np.concatenate([score.ravel().astype(float) for score in flat.values()])
    marks = np.zeros(joined.size, bool)
    marks[first_best(joined, count)] = True
    expected, start = {}, 0
    for path, score in flat.items():
        expected[path] = marks[start : start + score.size].reshape(score.shape)
        start += score.size
    return expected


@settings(deadline=None, max_examples=80)
@given(score_trees(), st.data())
def test_top_overall_keeps_the_best_of_all_arrays(scores, data):
    flat = arrays(scores)
    total = sum(score.size for score in flat.values())
    count = data.draw(st.integers(0, total))
    expected = slow_overall(flat, count)
    assert_masks(choose.top_overall(scores, count), scores, expected)


@settings(deadline=None, max_examples=60)
@given(score_trees(), st.floats(0, 1), st.data())
def test_by_scope_is_the_same_choice_by_name(scores, fraction, data):
    flat = arrays(scores)
    total = sum(score.size for score in flat.values())
    whole = choose.share(fraction, total)
    network = choose.by_scope(scores, "network", fraction=fraction)
    assert_masks(network, scores, slow_overall(flat, whole))
    array = choose.by_scope(scores, "array", fraction=fraction)
    assert_masks(array, scores, trees.flatten(choose.top_per_array(scores, fraction)))
    neuron = choose.by_scope(scores, "neuron", fraction=fraction, neuron_axes=AXES)
    slow = {
        path: slow_per_neuron(
            score, AXES.get(path, (-1,)), lambda n: choose.share(fraction, n)
        )
        for path, score in flat.items()
    }
    assert_masks(neuron, scores, slow)
    one = choose.by_scope(scores, "array", count=1)
    assert all(flags.sum() == 1 for flags in trees.flatten(one).values())
    count = data.draw(st.integers(1, total))
    network = choose.by_scope(scores, "network", count=count)
    assert_masks(network, scores, slow_overall(flat, count))


@settings(deadline=None, max_examples=60)
@given(score_trees(), st.floats(0, 1))
def test_a_block_has_a_budget_of_its_own(scores, fraction):
    flat = arrays(scores)
    blocks = {}
    for path in flat:
        blocks.setdefault(path.split("/")[0], {})[path] = flat[path]
    expected = {}
    for block in blocks.values():
        total = sum(score.size for score in block.values())
        expected |= slow_overall(block, choose.share(fraction, total))
    mask = choose.by_scope(scores, "block", fraction=fraction)
    assert_masks(mask, scores, expected)
    one = choose.by_scope(scores, "block", count=1)
    for name in scores:
        assert (
            sum(flags.sum() for flags in trees.flatten({"": one[name]}).values()) == 1
        )


@settings(deadline=None, max_examples=40)
@given(score_trees(), st.integers(8, 2000))
def test_a_budget_of_bytes_buys_as_many_elements_as_fit(scores, size):
    flat = arrays(scores)
    for scope in ("array", "block", "network"):
        mask = choose.by_scope(scores, scope, budget_bytes=size)
        groups = {}
        for path in flat:
            key = {"array": path, "block": path.split("/")[0]}.get(scope, "")
            groups.setdefault(key, {})[path] = flat[path]
        expected = {}
        for group in groups.values():
            total = sum(score.size for score in group.values())
            expected |= slow_overall(group, min(total, size // 8))
        assert_masks(mask, scores, expected)
    neuron = choose.by_scope(scores, "neuron", neuron_axes=AXES, budget_bytes=size)
    expected = {
        path: slow_per_neuron(score, AXES.get(path, (-1,)), lambda n: min(n, size // 8))
        for path, score in flat.items()
    }
    assert_masks(neuron, scores, expected)


@pytest.mark.parametrize("fraction", [1e-5, 1e-3, 0.1, 0.9])
def test_a_delta_of_what_fits_is_no_larger(fraction):
    rng = np.random.default_rng(0)
    old = rng.random((1000, 500)).astype(np.float32)
    size = int(fraction * old.size * score_arrays.ELEMENT_BYTES) + 7
    mask = choose.by_scope(rng.random(old.shape), "network", budget_bytes=size)
    change = leaves.changes({"w": old}, {"w": np.where(mask, old + 1, old)})["w"]
    _, parts = folder.pack({"w": change})
    assert change.count == size // 8 == mask.sum()
    assert sum(part.nbytes for part in parts.values()) <= size


@pytest.fixture(autouse=True)
def memory_that_is_not_set_holds_anything(monkeypatch):
    unset = score_arrays.unset

    def poisoned(shapes):
        marks = unset(shapes)
        for mark in marks:
            mark[...] = True
        return marks

    monkeypatch.setattr(score_arrays, "unset", poisoned)


def stable(values, count):
    marks = np.zeros(values.size, bool)
    marks[np.argsort(-values, kind="stable")[:count]] = True
    return marks


@pytest.mark.parametrize("many", [1, 1 << 22])  # with threads, and without
@pytest.mark.parametrize("grid", [None, 1e-3, 0.5, 1e9])  # ever more ties
@pytest.mark.parametrize("count", [0, 1, 700, 70_000, 350_000, 699_998, 700_001])
def test_large_arrays_agree_with_a_stable_sort(grid, count, many, monkeypatch):
    monkeypatch.setattr(score_arrays, "MANY", many)
    monkeypatch.setattr(top_k, "CHUNK", 9_973)
    rng = np.random.default_rng(0)
    values = rng.normal(size=700_001).astype(np.float32)
    if grid:
        values = np.round(values / np.float32(grid)) * np.float32(grid)
    scores = {"a": values[:1], "b": values[1:400_001].reshape(1000, 400)}
    scores["c"] = values[400_001:]
    mask = choose.top_overall(scores, count)
    flat = np.concatenate([mask[name].ravel() for name in "abc"])
    np.testing.assert_array_equal(flat, stable(values, count))


@pytest.mark.parametrize("grid", [None, 0.1, 1e9])
@pytest.mark.parametrize("k", [1, 2, 7, 250, 1001])
def test_wide_kernels_agree_with_a_stable_sort(grid, k):
    scores = np.random.default_rng(0).normal(size=(1001, 30)).astype(np.float32)
    if grid:
        scores = np.round(scores / grid) * grid
    before = scores.copy()
    expected = np.stack([stable(column, k) for column in scores.T], 1)
    np.testing.assert_array_equal(choose.top_per_neuron(scores, k), expected)
    np.testing.assert_array_equal(scores, before)  # nothing was sorted in place


@pytest.mark.parametrize("rows", [15, 16, 23])  # in groups of 8 and some left over
@pytest.mark.parametrize("values", [[0, 1, 2], [7], [-np.inf, -1.0], range(99)])
def test_the_best_input_is_the_first_of_equals(rows, values):
    scores = np.random.default_rng(0).choice(values, (rows, 400)) * np.float32(1)
    scores[-1, ::3] = 100  # the last row
    marks = choose.top_per_neuron({"a": scores, "b": scores[:9]}, 1)
    np.testing.assert_array_equal(marks["a"].argmax(0), scores.argmax(0))
    np.testing.assert_array_equal(marks["b"].argmax(0), scores[:9].argmax(0))
    assert (marks["a"].sum(0) == 1).all() and (marks["b"].sum(0) == 1).all()


@pytest.mark.parametrize("tie", [0.0, np.inf, -np.inf])
@pytest.mark.parametrize("count", [50, 1_000, 60_000, 99_999])
def test_most_elements_may_be_equal(tie, count):
    rng = np.random.default_rng(0)
    values = np.where(rng.random(100_000) < 0.9, tie, rng.normal(size=100_000))
    mask = choose.top_overall({"a": values[:70_000], "b": values[70_000:]}, count)
    flat = np.concatenate([mask["a"], mask["b"]])
    np.testing.assert_array_equal(flat, stable(values, count))


def test_a_misleading_sample_costs_time_but_not_truth(monkeypatch):
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    for bounds in [(1e3, 2e3), (-2e3, -1e3), (0.5, 0.6), (0.5, 0.5)]:

        def bracket(rows, count, deviations, bounds=bounds):
            return bounds if deviations == 3 else (-np.inf, np.inf)

        monkeypatch.setattr(top_k, "_bracket", bracket)
        mask = choose.top_overall(values, 40)
        np.testing.assert_array_equal(mask, stable(values, 40))


def test_arrays_of_different_types_compare_exactly():
    between = 1 + 2.0**-30  # rounds to 1 in float32
    scores = {"a": np.float32([1, 0]), "b": np.float64([between, 2])}
    mask = choose.top_overall(scores, 2)
    assert (mask["a"].tolist(), mask["b"].tolist()) == ([False] * 2, [True] * 2)
    assert choose.top_overall({"a": np.array([1, 3, 2])}, 1)["a"].tolist() == [0, 1, 0]


def test_vectors_have_no_neurons_unless_they_are_named():
    scores = {"bias": np.ones(3), "scale": np.ones(())}
    assert not choose.top_per_neuron(scores, 1)["bias"].any()
    named = choose.top_per_neuron(scores, 1, {"bias": (0,)})
    assert named["bias"].all() and not named["scale"].any()


def test_random_scores_of_a_bare_array_are_accepted_everywhere():
    score = np.random.default_rng(0).random((6, 5))
    assert choose.top_per_neuron(score, 2).sum(0).tolist() == [2] * 5
    assert choose.top_per_neuron(score, 2, {"": (0,)}).sum(1).tolist() == [2] * 6
    assert choose.top_per_array(score, 0.25).sum() == 8  # 7.5, rounded up
    assert choose.top_overall(score, 11).sum() == 11


KERNEL = {"a": {"kernel": np.ones((5, 4))}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose.top_per_neuron(KERNEL, 6), r"k=6 is outside \[1, 5\] for 'a/k"),
        (lambda: choose.top_per_neuron(KERNEL, 0), r"k=0 is outside \[1, 5\]"),
        (lambda: choose.top_per_neuron(KERNEL, 1.5), "k=1.5 is no whole number"),
        (
            lambda: choose.top_per_neuron(KERNEL, 1, {"a/kernl": (1,)}),
            "neuron_axes of 'a/kernl'; nearest of 1: 'a/kernel'",
        ),
        (
            lambda: choose.top_per_neuron(KERNEL, 1, {"a/kernel": (1, -1)}),
            r"neuron axes \(1, -1\) are not axes for 'a/kernel' \(5, 4\)",
        ),
        (lambda: choose.top_per_neuron(KERNEL, 1, {"a/kernel": (2,)}), "are not axes"),
        (
            lambda: choose.top_per_array(KERNEL, 1.5),
            r"fraction=1.5 is outside \[0, 1\]",
        ),
        (lambda: choose.top_per_array(KERNEL, -0.1), "fraction=-0.1 is outside"),
        (lambda: choose.top_per_array(KERNEL, np.nan), "fraction=nan is outside"),
        (lambda: choose.top_overall(KERNEL, 21), r"count=21 is outside \[0, 20\]"),
        (lambda: choose.top_overall(KERNEL, -1), r"count=-1 is outside \[0, 20\]"),
        (
            lambda: choose.by_scope(KERNEL, "array", count=21),
            r"=21 is outside \[1, 20\]",
        ),
        (lambda: choose.by_scope(KERNEL, "neuron", count=6), r"=6 is outside \[1, 5\]"),
        (
            lambda: choose.by_scope(KERNEL, "neuron"),
            "fraction=None, count=None, budget_bytes=None; exactly",
        ),
        (
            lambda: choose.by_scope(KERNEL, "array", 0.5, 1),
            "count=1, budget_bytes=None",
        ),
        (
            lambda: choose.by_scope(KERNEL, "array", 0.5, budget_bytes=80),
            "fraction=0.5, count=None, budget_bytes=80; exactly one of them",
        ),
        (
            lambda: choose.by_scope(KERNEL, "block", budget_bytes=7),
            r"budget_bytes=7 is outside \[8, inf\]",
        ),
        (
            lambda: choose.by_scope(KERNEL, "block", budget_bytes=8.5),
            "budget_bytes=8.5 is no whole number",
        ),
        (
            lambda: choose.by_scope(KERNEL, "block", count=21),
            r"count=21 is outside \[1, 20\] for block 'a'",
        ),
        (lambda: choose.by_scope(KERNEL, "row", 0.5), "there are array, block, net"),
        (lambda: choose.by_scope(KERNEL, "neurons", 0.5), "did you mean 'neuron'"),
    ],
)
def test_impossible_budgets_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "choice",
    [
        lambda s: choose.top_per_neuron(s, 1),
        lambda s: choose.top_per_array(s, 0.5),
        lambda s: choose.top_per_neuron(s, 2),
        lambda s: choose.top_overall(s, 1),
        lambda s: choose.top_overall(s, 0),
        lambda s: choose.by_scope(s, "block", 0.0),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16])
def test_a_score_that_is_no_number_is_refused_by_name(choice, kind):
    scores = {"a": {"kernel": np.ones((5, 4), kind)}, "b": np.ones((2, 2), kind)}
    scores["a"]["kernel"][3, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN for 'a/kernel' \(5, 4\)"):
        choice(scores)


def test_a_million_scores_take_no_sort():
    scores = np.random.default_rng(0).random((1000, 4000), np.float32)
    start = time.process_time()
    choose.top_overall(scores, 40_000)
    quick = time.process_time() - start
    start = time.process_time()
    np.argsort(scores.ravel())
    assert quick < time.process_time() - start
