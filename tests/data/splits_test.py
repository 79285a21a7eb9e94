from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtune_jax.data import splits

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)
SEEDS = st.integers(0, 2**31)


def quotas(labels, count):
    """Largest remainder in exact fractions, one example at a time."""
    classes = sorted(set(labels.tolist()))
    share = {
        c: Fraction(int((labels == c).sum()) * count, len(labels)) for c in classes
    }
    quotas = {c: int(share[c]) for c in classes}
    if count >= len(classes):
        quotas = {c: max(1, quotas[c]) for c in classes}
    while sum(quotas.values()) < count:
        quotas[max(classes, key=lambda c: (share[c] - quotas[c], -c))] += 1
    while sum(quotas.values()) > count:
        full = [c for c in classes if quotas[c] > 1]
        quotas[max(full, key=lambda c: (quotas[c] - share[c], -c))] -= 1
    return quotas


@given(LABELS, st.data(), SEEDS)
def test_a_subset_has_exactly_its_count_by_largest_remainder(labels, data, seed):
    count = data.draw(st.integers(0, len(labels)))
    indices = splits.subset(labels, count, seed)
    assert len(set(indices.tolist())) == len(indices) == count
    np.testing.assert_array_equal(indices, np.sort(indices))
    for label, quota in quotas(labels, count).items():
        assert (labels[indices] == label).sum() == quota


@given(LABELS, st.data(), SEEDS)
def test_no_class_is_left_out_when_there_is_room(labels, data, seed):
    classes = set(labels.tolist())
    count = data.draw(st.integers(len(classes), len(labels)))
    assert set(labels[splits.subset(labels, count, seed)].tolist()) == classes


@pytest.mark.parametrize("count", [-1, 4])
def test_a_subset_larger_than_the_whole_is_refused(count):
    with pytest.raises(ValueError, match=rf"count={count} is outside \[0, 3\]"):
        splits.subset(np.array([0, 1, 1]), count, seed=0)


def test_the_seed_alone_decides_the_draw():
    labels = np.arange(200) % 4
    one, same, other = (splits.subset(labels, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_every_example_is_drawn_equally_often():
    labels = np.repeat([0, 1], [4, 12])
    drawn = np.zeros(16)
    for seed in range(2000):
        drawn[splits.subset(labels, 8, seed)] += 1
    # Half of each class; five standard errors of a share over 2,000 draws.
    assert np.abs(drawn / 2000 - 0.5).max() < 5 * 0.5 / np.sqrt(2000)


@given(LABELS, st.integers(0, 100), st.integers(0, 100), SEEDS)
def test_parts_are_disjoint_exhaustive_and_of_the_wanted_sizes(labels, a, b, seed):
    low, high = sorted((a, b))
    parts = [low / 100, (high - low) / 100, 1 - high / 100]
    pieces = splits.stratified(labels, parts, seed)
    together = np.sort(np.concatenate(pieces))
    np.testing.assert_array_equal(together, np.arange(len(labels)))
    for part, piece in zip(parts, pieces, strict=True):
        assert abs(len(piece) - part * len(labels)) < 1 + 1e-6


@given(st.lists(st.integers(8, 40), min_size=1, max_size=5), SEEDS)
def test_every_class_has_its_share_of_every_part(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for part, piece in zip(
        (0.5, 0.25, 0.25),
        splits.stratified(labels, (0.5, 0.25, 0.25), seed),
        strict=True,
    ):
        counts = np.bincount(labels[piece], minlength=len(sizes))
        # Rounding by one at each of the cuts that come before the part is taken.
        assert np.abs(counts - np.array(sizes) * part).max() <= 2


@given(LABELS, st.data(), SEEDS)
def test_counts_are_met_exactly(labels, data, seed):
    first = data.draw(st.integers(0, len(labels)))
    pieces = splits.stratified(labels, (first, len(labels) - first), seed)
    assert [len(piece) for piece in pieces] == [first, len(labels) - first]


@given(LABELS, st.data(), SEEDS)
def test_groups_never_straddle_a_cut(labels, data, seed):
    some = st.lists(st.integers(0, 9), min_size=len(labels), max_size=len(labels))
    groups = np.array(data.draw(some))
    pieces = splits.stratified(labels, (0.5, 0.2, 0.3), seed, groups)
    together = np.sort(np.concatenate(pieces))
    np.testing.assert_array_equal(together, np.arange(len(labels)))
    for group in set(groups.tolist()):
        members = np.flatnonzero(groups == group)
        assert sum(bool(np.isin(members, piece).any()) for piece in pieces) == 1


@pytest.mark.parametrize(
    "parts, message",
    [
        ((0.5, 0.4), r"parts=\[0.5, 0.4\] do not sum to 1"),
        ((1.5, -0.5), "do not sum to 1"),
        ((2, 3), r"parts=\[2, 3\] do not sum to 4 examples"),
        ((5, -1), "do not sum to 4 examples"),
    ],
)
def test_parts_that_are_not_the_whole_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        splits.stratified(np.array([0, 1, 0, 1]), parts, seed=0)


def test_counts_beside_groups_are_refused():
    with pytest.raises(ValueError, match="groups need fractions"):
        splits.stratified(np.zeros(4), (2, 2), seed=0, groups=np.zeros(4))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=30))
def test_of_equal_contents_the_first_is_kept_or_none_in_a_conflict(rows):
    contents = [content for content, _ in rows]
    labels = np.array([label for _, label in rows], int)
    expected = []
    for index, content in enumerate(contents):
        alike = [i for i, other in enumerate(contents) if other == content]
        if alike[0] == index and len({int(labels[i]) for i in alike}) == 1:
            expected.append(index)
    assert splits.distinct(contents, labels).tolist() == expected


def test_labels_become_int32_and_must_be_classes():
    assert splits.checked([0, 2, 1], 3, "x").dtype == np.int32
    with pytest.raises(
        ValueError, match=r"x: label 3 of example 1 is outside \[0, 3\)"
    ):
        splits.checked([0, 3], 3, "x")
    with pytest.raises(ValueError, match="label -1 of example 0"):
        splits.checked([-1, 0], 3, "x")


def test_a_task_has_three_parts():
    with pytest.raises(ValueError, match="there are three: train, validation and test"):
        splits.task("x", ("a",), dict, np.zeros(4), fractions=(0.5, 0.5), seed=0)
