"""Promises of the stability report, against sets and sums over all of them."""

import itertools
import json

import numpy as np
import pytest

from subtune_jax.selection import choose, stability


def drawn(seed, share=0.4):
    rng = np.random.default_rng(seed)
    shapes = {"one": {"kernel": (5, 4), "bias": (4,)}, "two": {"kernel": (4, 3)}}
    return {
        block: {name: rng.random(shape) < share for name, shape in leaves.items()}
        for block, leaves in shapes.items()
    }


def elements(mask, blocks):
    return {
        (block, name, *index)
        for block in blocks
        for name, flags in mask[block].items()
        for index in zip(*map(list, np.nonzero(flags)), strict=True)
    }


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_overlap_and_jaccard_are_those_of_the_sets(share):
    a, b = drawn(0, share), drawn(1)
    answer = stability.overlap(a, b)
    assert set(answer["blocks"]) == {"one", "two"}
    views = [(answer, ("one", "two"))]
    views += [(answer["blocks"][block], (block,)) for block in ("one", "two")]
    for numbers, blocks in views:
        in_a, in_b = elements(a, blocks), elements(b, blocks)
        shared = len(in_a & in_b)
        assert numbers["overlap"] == shared / max(len(in_a), len(in_b))
        assert numbers["jaccard"] == shared / len(in_a | in_b)
    assert stability.overlap(b, a) == answer


def test_inputs_are_those_that_have_an_element_of_each_partly_selected_kernel():
    kernel = np.zeros((2, 3, 4), bool)  # six inputs of four neurons
    kernel[1, 2] = [True, True, True, False]
    kernel[0, 1, 3] = True
    mask = {"a": kernel, "all": np.ones((2, 2), bool), "bias": np.array([True, False])}
    numbers = {"inputs": 2, "possible": 4, "largest_share": 0.75}
    assert stability.inputs(mask) == {"a": numbers}
    scores = {"a": np.random.default_rng(0).random((3, 8))}
    alike = {"a": scores["a"][:, :1] + np.zeros(8)}  # every neuron ranks them the same
    each, same = (choose.top_per_neuron(some, 1) for some in (scores, alike))
    assert stability.inputs(same)["a"]["inputs"] == 1
    assert stability.inputs(each)["a"]["inputs"] == len(set(scores["a"].argmax(0)))
    flags = {"a": np.bool_(True)}
    assert stability.inputs(flags, scores) == {}


def test_expected_by_chance_is_the_mean_over_all_random_sets():
    sizes = {"x": (5, 2, 3), "y": (4, 1, 1)}  # elements, those of a, those of b

    def every(which):
        choices = [
            [
                np.isin(np.arange(n), picked)
                for picked in itertools.combinations(range(n), (ka, kb)[which])
            ]
            for n, ka, kb in sizes.values()
        ]
        return [
            dict(zip(sizes, pair, strict=True)) for pair in itertools.product(*choices)
        ]

    pairs = [stability.overlap(a, b) for a in every(0) for b in every(1)]
    expected = np.mean([pair["overlap"] for pair in pairs])
    for pair in pairs[:3]:
        np.testing.assert_allclose(pair["expected_by_chance"], expected, rtol=1e-12)
        for block in sizes:
            mean = np.mean([each["blocks"][block]["overlap"] for each in pairs])
            by_chance = pair["blocks"][block]["expected_by_chance"]
            np.testing.assert_allclose(by_chance, mean, rtol=1e-12)


def test_overlap_of_masks_that_broadcast_counts_elements_of_the_parameters():
    params = {"a": {"kernel": np.ones((3, 4)), "bias": np.ones(2)}}
    a = {"a": {"kernel": np.True_, "bias": np.False_}}
    b = {"a": {"kernel": np.array([[True], [False], [False]]), "bias": np.True_}}
    answer = stability.overlap(a, b, params)
    assert answer["overlap"] == 4 / 12 and answer["jaccard"] == 4 / 14


def test_overlap_of_empty_sets_is_whole_and_of_one_empty_set_none():
    some, none = {"a": np.array([True, False])}, {"a": np.zeros(2, bool)}
    whole = {"overlap": 1.0, "jaccard": 1.0, "expected_by_chance": 1.0}
    assert stability.overlap(none, none) == whole | {"blocks": {"a": whole}}
    assert stability.overlap(some, none)["overlap"] == 0
    assert stability.overlap(none, some)["jaccard"] == 0


def test_overlap_refuses_what_cannot_be_compared():
    mask = {"a": {"kernel": np.ones((2, 3), bool)}}
    for other in (np.ones((2, 1), bool), np.ones((3, 3), bool)):
        for pair in (
            (mask, {"a": {"kernel": other}}),
            ({"a": {"kernel": other}}, mask),
        ):
            with pytest.raises(ValueError, match="mask of 'a/kernel' is"):
                stability.overlap(*pair)
    with pytest.raises(ValueError, match="leaf 'b' is in one tree"):
        stability.overlap(mask, mask | {"b": np.True_})
    with pytest.raises(ValueError, match="masks are booleans"):
        stability.overlap(mask, {"a": {"kernel": np.ones((2, 3))}})


def noisy(count, seed):
    """A fixed signal and noise that shrinks with the number of batches."""
    signal = np.random.default_rng(9).normal(size=(2, 30))
    noise = np.random.default_rng(seed).normal(size=(2, 30)) / count
    return {"a": {"kernel": signal[0] + noise[0]}, "b": {"kernel": signal[1]}}


def choose_four(scores):
    return choose.top_per_array(scores, 4 / 30)


def test_report_compares_each_count_with_the_largest_and_all_pairs_of_seeds():
    calls = []

    def counted(count, seed):
        calls.append((count, seed))
        return noisy(count, seed)

    counts, seeds = (8, 1, 2), (0, 1, 2)
    summary = stability.report(counted, choose_four, counts, seeds)
    assert sorted(calls) == sorted(itertools.product(counts, seeds))
    sets = {
        (count, seed): elements(choose_four(noisy(count, seed)), ("a", "b"))
        for count in counts
        for seed in seeds
    }

    def shares(pairs):
        return [len(sets[a] & sets[b]) / 8 for a, b in pairs]

    assert summary["counts_of_batches"] == [1, 2, 8] and summary["seeds"] == [0, 1, 2]
    assert [row["batches"] for row in summary["with_largest"]] == [1, 2]
    for row in summary["with_largest"]:
        literal = shares([((row["batches"], seed), (8, seed)) for seed in seeds])
        assert min(literal) < np.mean(literal)
        assert (row["mean"], row["min"]) == (np.mean(literal), min(literal))
        np.testing.assert_allclose(row["expected_by_chance"], 4 / 30)
        jaccard = np.mean([x * 8 / (16 - x * 8) for x in literal])
        np.testing.assert_allclose(row["jaccard"], jaccard)
        assert row["pairs"] == 3
        assert row["blocks"]["b"] == 1 > row["blocks"]["a"]
    between = summary["between_seeds"]
    literal = shares([((8, a), (8, b)) for a, b in itertools.combinations(seeds, 2)])
    assert (between["mean"], between["min"]) == (np.mean(literal), min(literal))
    assert json.loads(json.dumps(summary)) == summary


def test_report_of_one_count_and_one_seed_has_nothing_to_compare():
    summary = stability.report(noisy, choose_four, np.array([3]), np.array([0]))
    assert summary["with_largest"] == [] and summary["between_seeds"] is None
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    "counts, seeds, message",
    [
        ([], [0], r"counts \[\]; one or more, all different"),
        ([1, 1], [0], r"counts \[1, 1\]; one or more"),
        ([1], [2, 2], r"seeds \[2, 2\]; one or more"),
        ([0, 1], [0], r"counts \[0, 1\]; each must be 1 or more"),
    ],
)
def test_report_refuses_nothing_and_repeats(counts, seeds, message):
    with pytest.raises(ValueError, match=message):
        stability.report(noisy, choose_four, counts, seeds)
