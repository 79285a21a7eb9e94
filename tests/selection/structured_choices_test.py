"""Promises of structured choices, against loops in plain Python."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.backbones import vit
from subtune_jax.core import trees
from subtune_jax.selection import coupled, masks, structured

VALUES = [[0.0], [0.0, 1.0], [-3.0, -2.0, -1.0], [-np.inf, -1.0, 0.0, 2.0], None]
AXES = {"attn/query": (1, 2), "bias": (0,)}


@st.composite
def score_trees(draw):
    """Small integers, whose sums are exact: many ties, negative, infinite, equal."""
    i, o, h, d = (draw(st.integers(1, 5)) for _ in range(4))
    shapes = {
        "attn/query": (i, h, d),
        "attn-2/kernel": (i, o),  # sorts before "attn/..." by path, after by keys
        "conv": (2, 3, i, o),
        "bias": (o,),
        "scale": (),
    }
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    values = draw(st.sampled_from(VALUES))
    kind = draw(st.sampled_from([np.float32, np.float64]))

    def leaf(shape):
        drawn = rng.integers(-9, 9, shape) if values is None else None
        return np.asarray(rng.choice(values, shape) if drawn is None else drawn, kind)

    return trees.nest({path: leaf(shape) for path, shape in shapes.items()})


def best(totals, count):
    """Places of the `count` largest, ties to the first: the slow definition."""
    return sorted(range(len(totals)), key=lambda i: (-totals[i], i))[:count]


def rounded(fraction, size):
    return min(size, max(int(fraction * size + 0.5), int(fraction > 0)))


def slow(score, groups, count):
    """Marks the `count` groups of flat places with the largest sums."""
    flat = score.ravel().astype(float)
    totals = [sum(flat[place] for place in group) for group in groups]
    marks = np.zeros(score.size, bool)
    for group in best(totals, count):
        marks[groups[group]] = True
    return marks.reshape(score.shape)


def by_key(score, key):
    groups = {}
    for flat, index in enumerate(np.ndindex(score.shape)):
        groups.setdefault(key(index), []).append(flat)
    return [groups[k] for k in sorted(groups)]


def lines(path, score, of_columns):
    """Flat places of every column, or of every row."""
    outputs = [axis % score.ndim for axis in AXES.get(path, (-1,))]
    inputs = [axis for axis in range(score.ndim) if axis not in outputs]
    axes = outputs if of_columns else inputs
    return by_key(score, lambda index: tuple(index[axis] for axis in axes))


def assert_masks(mask, scores, expected):
    assert jax.tree.structure(mask) == jax.tree.structure(scores)
    flat = trees.flatten(mask)
    for path, score in trees.flatten(scores).items():
        assert isinstance(flat[path], np.ndarray) and flat[path].dtype == bool
        assert flat[path].shape == score.shape
        np.testing.assert_array_equal(flat[path], expected[path], err_msg=path)


@pytest.mark.parametrize("of_columns", [True, False])
@settings(deadline=None, max_examples=60)
@given(scores=score_trees(), fraction=st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]))
def test_columns_and_rows_of_the_largest_sum_are_taken_whole(
    of_columns, scores, fraction
):
    expected = {}
    for path, score in trees.flatten(scores).items():
        expected[path] = np.zeros(score.shape, bool)
        if score.ndim > 1 or path in AXES:
            groups = lines(path, score, of_columns)
            expected[path] = slow(score, groups, rounded(fraction, len(groups)))
    choice = structured.columns if of_columns else structured.rows
    mask = choice(scores, fraction=fraction, neuron_axes=AXES)
    assert_masks(mask, scores, expected)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_columns_and_rows_are_counted_exactly(count):
    score = np.zeros((4, 4))
    score[2, 3] = 1.0
    first = [3, 0, 1, 2][:count]  # ties to the lowest index
    columns = structured.columns(score, count=count)
    assert columns.all(0).nonzero()[0].tolist() == sorted(first)
    assert columns.sum() == 4 * count
    first = [2, 0, 1, 3][:count]
    rows = structured.rows(score, count=count)
    assert rows.all(1).nonzero()[0].tolist() == sorted(first)
    assert rows.sum() == 4 * count


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(VALUES),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([-2, -1, 0]),
    st.data(),
)
def test_of_every_m_consecutive_inputs_the_n_best_are_kept(
    values, m, times, axis, data
):
    n = data.draw(st.integers(0, m))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    shapes = {"dense": [3, 4], "conv": [2, 3, 4, 2], "bias": [5]}
    scores, expected = {}, {}
    for path, shape in shapes.items():
        if len(shape) > 1:
            shape[axis] = m * times
        draw = (
            rng.integers(-9, 9, shape) if values is None else rng.choice(values, shape)
        )
        scores[path] = score = draw.astype(np.float32)
        marks = np.zeros(score.size, bool)
        if len(shape) > 1:
            place = axis % score.ndim

            def group(index, place=place):
                rest = index[:place] + index[place + 1 :]
                return (*rest, index[place] // m)

            for members in by_key(score, group):
                for i in best(score.ravel()[members], n):
                    marks[members[i]] = True
        expected[path] = marks.reshape(score.shape)
    assert_masks(structured.n_of_m(scores, n, m, axis), scores, expected)


def tile_groups(score, size):
    columns = score.shape[-1]

    def tile(index):
        row = np.ravel_multi_index(index, score.shape) // columns
        return row // size[0], index[-1] // size[1]

    return by_key(score, tile)


@settings(deadline=None, max_examples=80)
@given(
    score_trees(),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]),
)
def test_tiles_of_the_largest_sum_are_taken_whole(scores, size, fraction):
    flat = trees.flatten(scores)
    groups = {p: tile_groups(s, size) for p, s in flat.items() if s.ndim > 1}
    blank = {path: np.zeros(score.shape, bool) for path, score in flat.items()}
    each = {
        path: slow(flat[path], group, rounded(fraction, len(group)))
        for path, group in groups.items()
    }
    mask = structured.tiles(scores, size, fraction=fraction)
    assert_masks(mask, scores, blank | each)
    everything = [(path, group) for path in groups for group in groups[path]]
    totals = [sum(float(flat[p].ravel()[i]) for i in group) for p, group in everything]
    for i in best(totals, rounded(fraction, len(totals))):
        path, group = everything[i]
        blank[path].reshape(-1)[group] = True
    mask = structured.tiles(scores, size, fraction=fraction, scope="network")
    assert_masks(mask, scores, blank)


def test_ragged_tiles_count_as_tiles():
    score = np.zeros((5, 7))
    score[4, 6] = 1.0  # in the last tile, of one row and one column
    mask = structured.tiles(score, (2, 3), count=2)
    assert mask[4, 6] and mask[:2, :3].all() and mask.sum() == 7
    assert structured.tiles(score, (2, 3), count=9).all()
    assert not structured.tiles(score, (2, 3), count=0).any()
    assert structured.tiles(score, count=1).all()  # of 128 x 128


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(VALUES),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]),
    st.integers(0, 1 << 30),
)
def test_slices_that_belong_together_are_chosen_together(
    values, number, width, fraction, seed
):
    rng = np.random.default_rng(seed)
    n = number * width
    shapes = {
        "up": (3, n),
        "bias": (n,),
        "down": (n, 2),
        "odd": (2, n, 2),
        "else": (4,),
    }
    groups = {"ffn": [("up", 1), ("bias", 0), ("down", 0)], "odd": [("odd", -2)]}
    scores = {
        path: (rng.integers(-9, 9, s) if values is None else rng.choice(values, s))
        * 1.0
        for path, s in shapes.items()
    }
    expected = {path: np.zeros(shape, bool) for path, shape in shapes.items()}
    for members in groups.values():
        totals = [0.0] * number
        for path, axis in members:
            for index in np.ndindex(shapes[path]):
                totals[index[axis] // width] += float(scores[path][index])
        kept = best(totals, rounded(fraction, number))
        for path, axis in members:
            for index in np.ndindex(shapes[path]):
                expected[path][index] = index[axis] // width in kept
    mask = coupled.coupled(scores, groups, fraction=fraction, width=width)
    assert_masks(mask, scores, expected)


@pytest.fixture(scope="module")
def network():
    backbone = vit.make(**vit.TINY)
    params = backbone.init(jax.random.key(0), 3).params
    rng = np.random.default_rng(0)  # biases that are zero would hide their order
    return backbone, jax.tree.map(
        lambda p: p + rng.normal(size=p.shape).astype(np.float32) / 8, params
    )


def test_heads_and_channels_of_a_vit_are_found(network):
    _, params = network
    names = [(n, k) for n in ("query", "key", "value") for k in ("kernel", "bias")]
    inner = [f"block01/attn/{n}/{k}" for n, k in names]
    heads = coupled.heads(params)
    assert set(heads) == {"block01", "block02"}
    expected = {(path, -1) for path in inner} | {("block01/attn/out/kernel", 0)}
    assert set(heads["block01"]) == expected
    assert set(coupled.channels(params)["block02"]) == {
        ("block02/fc1/kernel", -1),
        ("block02/fc1/bias", -1),
        ("block02/fc2/kernel", 0),
    }
    kernels = masks.find(params, ".*kernel")  # paths as keys, no biases
    assert set(coupled.channels(kernels)["block01"]) == {
        ("block01/fc1/kernel", -1),
        ("block01/fc2/kernel", 0),
    }


@pytest.mark.parametrize(("kind", "width"), [("heads", 8), ("channels", 1)])
def test_a_permuted_network_is_the_same_function_with_the_chosen_first(
    network, kind, width
):
    backbone, params = network
    groups = getattr(coupled, kind)(params)
    rng = np.random.default_rng(1)
    scores = jax.tree.map(lambda p: rng.random(p.shape), params)
    if kind == "heads":  # the last head, so that the order must change
        scores["block01"]["attn"]["out"]["kernel"][8:] += 9.0
    mask = coupled.coupled(scores, groups, fraction=0.5, width=width)
    order = coupled.orders(mask, groups)
    moved = coupled.permute(params, groups, order)
    assert any((np.diff(places) < 0).any() for places in order.values())
    x = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    before, _ = backbone.apply(params, {}, x)
    after, _ = backbone.apply(moved, {}, x)
    np.testing.assert_allclose(after, before, atol=2e-5)
    first = trees.flatten(coupled.permute(mask, groups, order))
    for members in groups.values():
        for path, axis in members:
            flags = np.moveaxis(first[path], axis, 0)
            half = len(flags) // 2
            assert flags[:half].all() and not flags[half:].any()
    back = {name: np.argsort(places) for name, places in order.items()}
    again = coupled.permute(moved, groups, back)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_an_mlp_with_permuted_channels_gives_the_same_output():
    rng = np.random.default_rng(0)
    shapes = {"fc1/kernel": (6, 24), "fc1/bias": (24,), "fc2/kernel": (24, 5)}
    flat = {path: rng.normal(size=shape) for path, shape in shapes.items()}
    params = trees.nest(flat)
    groups = coupled.channels(params)
    mask = coupled.coupled(params, groups, count=7)
    moved = coupled.permute(params, groups, coupled.orders(mask, groups))
    x = rng.normal(size=(3, 6))

    def mlp(p):
        hidden = np.tanh(x @ p["fc1"]["kernel"] + p["fc1"]["bias"])
        return hidden @ p["fc2"]["kernel"]

    np.testing.assert_allclose(mlp(moved), mlp(params), rtol=1e-12, atol=1e-12)
    flags = mask["fc1"]["bias"]
    np.testing.assert_array_equal(
        moved["fc1"]["bias"][:7], params["fc1"]["bias"][flags]
    )


KERNEL = {"a": {"kernel": np.ones((6, 4))}, "b": np.ones((4,))}
PAIR = {"ffn": [("a/kernel", 1), ("b", 0)]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: structured.columns(KERNEL), "fraction=None, count=None; exactly one"),
        (lambda: structured.rows(KERNEL, 0.5, 1), "fraction=0.5, count=1; exactly one"),
        (
            lambda: structured.columns(KERNEL, count=5),
            r"count=5 is outside \[0, 4\] for 'a/kernel' \(6, 4\)",
        ),
        (lambda: structured.rows(KERNEL, count=7), r"count=7 is outside \[0, 6\]"),
        (lambda: structured.columns(KERNEL, count=-1), "count=-1 is outside"),
        (lambda: structured.columns(KERNEL, 1.5), "fraction=1.5 is outside"),
        (
            lambda: structured.columns(KERNEL, 0.5, neuron_axes={"a/kernl": (1,)}),
            "neuron_axes of 'a/kernl'; nearest",
        ),
        (
            lambda: structured.n_of_m(KERNEL, 2, 4),
            "axis -2 of 'a/kernel' is 6 long; 2:4 needs a multiple of 4",
        ),
        (lambda: structured.n_of_m(KERNEL, 3, 2), r"n=3 is outside \[0, 2\]"),
        (lambda: structured.n_of_m(KERNEL, 0, 0), "m=0 is outside"),
        (lambda: structured.n_of_m(KERNEL, 1, 2, 2), "axis=2 is no axis for 'a/kern"),
        (lambda: structured.tiles(KERNEL, (0, 4), 0.5), "size=0 is outside"),
        (
            lambda: structured.tiles(KERNEL, (4, 4), count=3),
            r"count=3 is outside \[0, 2",
        ),
        (
            lambda: structured.tiles(KERNEL, count=1, scope="block"),
            "there are array, n",
        ),
        (lambda: coupled.coupled(KERNEL, PAIR), "exactly one"),
        (
            lambda: coupled.coupled(KERNEL, PAIR, count=5),
            r"count=5 is outside \[0, 4\] for 'ffn'",
        ),
        (
            lambda: coupled.coupled(KERNEL, PAIR, count=1, width=3),
            "axis 1 of 'a/kernel' is 4 long; width=3",
        ),
        (
            lambda: coupled.coupled(KERNEL, {"f": [("a/kernel", 0), ("b", 0)]}, 0.5),
            "'a/kernel' has 6 slices, 'b' 4; in group 'f'",
        ),
        (
            lambda: coupled.coupled(KERNEL, {"f": [("c", 0)]}, 0.5),
            "'f' has 'c'; nearest",
        ),
        (lambda: coupled.coupled(KERNEL, {"f": [("b", 1)]}, 0.5), "axis=1 is no axis"),
        (lambda: coupled.coupled(KERNEL, {"f": []}, 0.5), "'f' has no arrays"),
        (lambda: coupled.channels(KERNEL), "no path ends in"),
        (lambda: coupled.permute(KERNEL, PAIR, {"fn": [0]}), "an order of 'fn'"),
        (
            lambda: coupled.permute(KERNEL, PAIR, {"ffn": [0, 1, 2, 2]}),
            "order of 'ffn' is no permutation of 4",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


CHOICES = [
    lambda s: structured.columns(s, count=1),
    lambda s: structured.rows(s, count=1),
    lambda s: structured.tiles(s, (2, 2), count=1),
    lambda s: structured.n_of_m(s, 1, 2),
    lambda s: coupled.coupled(s, PAIR, count=1),
]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_score_that_is_no_number_is_refused_by_name(choice):
    scores = {"a": {"kernel": np.ones((6, 4))}, "b": np.ones(4)}
    scores["a"]["kernel"][3, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN for 'a/kernel' \(6, 4\)"):
        choice(scores)


@pytest.mark.parametrize("choice", CHOICES[:3] + CHOICES[4:])
def test_opposite_infinities_have_no_sum(choice):
    scores = {"a": {"kernel": np.zeros((6, 4))}, "b": np.zeros(4)}
    scores["a"]["kernel"][:2, :2] = [[np.inf, -np.inf], [-np.inf, np.inf]]
    with pytest.raises(ValueError, match=re.escape("a sum of inf and -inf for '")):
        choice(scores)
