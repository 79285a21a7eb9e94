"""Counts of masks are those that a loop over the elements finds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from subtune_jax.report import counts
from subtune_jax.selection import choose

BLOCKS = ("stem", "b10", "b2", "gone", "top")
SHAPES = {
    "b10/dense/kernel": (4, 3),
    "b2/conv/kernel": (2, 2, 3, 5),
    "b2/bias": (5,),
    "stem/kernel": (3, 2),
    "top/scale": (6,),
}


def arrays(seed, draw=np.random.Generator.random):
    generator = np.random.default_rng(seed)
    return {path: draw(generator, shape) for path, shape in SHAPES.items()}


def flags(seed, rate=0.4):
    return {path: x < rate for path, x in arrays(seed).items()}


def test_selected_elements_are_counted_by_block_in_the_order_of_the_blocks():
    params, mask = arrays(0), flags(1)
    expected = {}
    for block in ("stem", "b10", "b2", "top"):
        part = whole = 0
        for path in SHAPES:
            if path.split("/")[0] == block:
                for flag in mask[path].ravel():
                    part, whole = part + int(flag), whole + 1
        expected[block] = (part, whole)
    selected = counts.selected(params, mask, BLOCKS)
    assert selected == expected and list(selected) == list(expected)


def test_a_single_flag_counts_for_all_it_stands_for():
    params = {"a": {"w": np.ones((2, 3)), "b": np.ones(4)}}
    mask = {"a": {"w": np.array([True, False, True]), "b": np.True_}}
    assert counts.selected(params, mask, ["a"]) == {"a": (8, 10)}


def test_mass_is_the_share_of_the_sum_and_adds_up_to_one():
    scores = {path: x.astype(np.float32) for path, x in arrays(2).items()}
    total, sums = 0.0, dict.fromkeys(("stem", "b10", "b2", "top"), 0.0)
    for path, score in scores.items():
        for value in score.ravel().tolist():
            sums[path.split("/")[0]] += value
            total += value
    shares = counts.mass(scores, BLOCKS)
    assert list(shares) == list(sums)
    for block, share in shares.items():
        assert share == pytest.approx(sums[block] / total, rel=1e-9)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "words"), [(-1, "0 or more"), (np.nan, "finite"), (np.inf, "finite")]
)
def test_mass_refuses_what_has_no_shares(value, words):
    with pytest.raises(ValueError, match=f"scores of 'a'.*{words}"):
        counts.mass({"a": np.array([1.0, value])}, ["a"])
    with pytest.raises(ValueError, match="all 0"):
        counts.mass({"a": np.zeros(2)}, ["a"])


def test_an_array_of_no_block_is_refused():
    with pytest.raises(ValueError, match="'b2/bias' is in none of the blocks"):
        counts.selected(arrays(0), flags(0), ["stem", "b10", "top"])


def test_inputs_are_counted_by_neuron_over_the_last_axis():
    mask = flags(3)
    expected = []
    for path in sorted(SHAPES):
        if len(SHAPES[path]) > 1:
            for neuron in range(SHAPES[path][-1]):
                picks = mask[path][..., neuron].ravel()
                expected.append(sum(int(flag) for flag in picks))
    assert counts.inputs(mask).tolist() == expected


def test_inputs_follow_the_neuron_axes():
    mask = {"query/kernel": np.random.default_rng(4).random((5, 2, 3)) < 0.5}
    inputs = counts.inputs(mask, {"query/kernel": (1, 2)})
    cube = mask["query/kernel"]
    assert inputs.tolist() == [
        sum(bool(cube[i, head, at]) for i in range(5))
        for head in range(2)
        for at in range(3)
    ]


def test_no_neurons_have_no_inputs():
    assert counts.inputs({"bias": np.ones(3, bool)}).size == 0
    assert counts.histogram(counts.inputs({})) == {"0": 0}


def test_the_best_k_of_each_neuron_give_each_k():
    scores = {p: x for p, x in arrays(5).items() if x.ndim > 1}
    assert set(counts.inputs(choose.top_per_neuron(scores, 2)).tolist()) == {2}


@given(npst.arrays(int, st.integers(0, 30), elements=st.integers(0, 70)))
def test_a_histogram_counts_every_neuron_once_in_its_bin(neurons):
    bins = counts.histogram(neurons)
    assert sum(bins.values()) == len(neurons)
    for name, number in bins.items():
        low, _, high = name.partition("-")
        inside = [n for n in neurons.tolist() if int(low) <= n <= int(high or low)]
        assert number == len(inside)
    ends = [[int(n) for n in name.split("-")] for name in bins]
    for before, after in itertools.pairwise(ends[1:]):
        assert after[0] == before[-1] + 1 and after[-1] == 2 * before[-1]


def test_overlaps_are_those_of_every_pair():
    masks = {"x": flags(6), "y": flags(7, 0.2), "z": flags(8, 0.7)}
    overlap, chance = counts.crossed(masks)
    for i, a in enumerate(masks.values()):
        for j, b in enumerate(masks.values()):
            sizes, shared, lucky = [0, 0], 0, 0.0
            for path in SHAPES:
                one, other = a[path].ravel().tolist(), b[path].ravel().tolist()
                sizes[0], sizes[1] = sizes[0] + sum(one), sizes[1] + sum(other)
                shared += sum(p and q for p, q in zip(one, other, strict=True))
                lucky += sum(one) * sum(other) / len(one)
            assert overlap[i, j] == pytest.approx(shared / max(sizes))
            assert chance[i, j] == pytest.approx(lucky / max(sizes))
