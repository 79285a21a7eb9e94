"""Promises of the folds on which candidates are valued."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtune_jax.subtuning import folds

LABELS = st.lists(st.integers(0, 4), min_size=8, max_size=50).map(np.array)
SEEDS = st.integers(0, 2**31)


def halves(labels):
    """As training and validation labels."""
    middle = len(labels) // 3
    return labels[middle:], labels[:middle]


@given(LABELS, st.integers(2, 8), SEEDS)
def test_each_example_is_held_out_once_and_trained_on_otherwise(labels, count, seed):
    train, validation = halves(labels)
    found = folds.cut(train, validation, count, [seed])
    together = [place for fold in found for place in fold.held.tolist()]
    assert len(found) == count
    assert sorted(together) == list(range(len(labels)))
    for fold in found:
        both = [*fold.train.tolist(), *fold.held.tolist()]
        assert sorted(both) == list(range(len(labels)))
        assert fold.train.tolist() == sorted(fold.train)
        assert fold.held.tolist() == sorted(fold.held)


@given(LABELS, st.integers(2, 8), SEEDS)
def test_folds_differ_by_one_at_most_in_all_and_of_each_class(labels, count, seed):
    train, validation = halves(labels)
    joined = np.concatenate([train, validation])
    found = folds.cut(train, validation, count, [seed])
    sizes = [len(fold.held) for fold in found]
    assert max(sizes) - min(sizes) <= 1
    for label in set(labels.tolist()):
        held = [int((joined[fold.held] == label).sum()) for fold in found]
        assert max(held) - min(held) <= 1
        assert sum(held) == (labels == label).sum()


def test_every_example_is_held_out_by_every_fold_equally_often():
    train, validation = np.repeat([0, 1], [5, 8]), np.repeat([0, 1], [3, 4])
    draws, held = 1500, np.zeros((4, 20))
    for seed in range(draws):
        for number, fold in enumerate(folds.cut(train, validation, 4, [seed])):
            held[number, fold.held] += 1
    # Two of 8 and three of 12 in each; five standard errors of a share.
    assert np.abs(held / draws - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / draws)


def same(one, other):
    return all(
        (a.number, a.seed, a.train.tolist(), a.held.tolist())
        == (b.number, b.seed, b.train.tolist(), b.held.tolist())
        for a, b in zip(one, other, strict=True)
    )


def test_folds_are_the_same_at_every_call_and_others_for_another_seed():
    labels = np.arange(60) % 3
    train, validation = halves(labels)
    one = folds.cut(train, validation, 5, [7])
    np.random.seed(1)
    assert same(one, folds.cut(train, validation, 5, [7]))
    other = folds.cut(train, validation, 5, [8])
    assert all(set(a.held) != set(b.held) for a, b in zip(one, other, strict=True))


def test_each_seed_has_its_own_folds_and_each_fold_its_number():
    labels = np.arange(60) % 3
    train, validation = halves(labels)
    found = folds.cut(train, validation, 3, [4, 5])
    assert [fold.number for fold in found] == list(range(6))
    assert [fold.seed for fold in found] == [4, 4, 4, 5, 5, 5]
    for number, seed in ((0, 4), (3, 5)):
        alone = folds.cut(train, validation, 3, [seed])
        for a, b in zip(found[number : number + 3], alone, strict=True):
            assert a.held.tolist() == b.held.tolist()


def test_no_folds_train_on_the_training_and_hold_out_the_validation_split():
    found = folds.cut(np.zeros(7, int), np.ones(3, int), 0, [4, 5])
    assert [(fold.number, fold.seed) for fold in found] == [(0, 4), (1, 5)]
    for fold in found:
        assert fold.train.tolist() == list(range(7))
        assert fold.held.tolist() == [7, 8, 9]


def test_folds_need_an_example_each():
    three, none = np.array([0, 1, 0]), np.zeros(0, int)
    assert all(len(fold.held) == 1 for fold in folds.cut(three, none, 3, [0]))
    with pytest.raises(ValueError, match="^4 folds; there are 3 examples$"):
        folds.cut(three[:2], three[2:], 4, [0])
    with pytest.raises(ValueError, match="^0 folds; there are no validation examples"):
        folds.cut(three, none, 0, [0])
