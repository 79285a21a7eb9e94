"""Promises of the sets that a profile and a round of a search are made of."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtune_jax.subtuning import candidates

BLOCKS = ("stem", "one", "two", "three")


def named(blocks, **options):
    made = candidates.make(**{"runs": (), "full": False, **options})
    return candidates.sets(blocks, made)


def test_the_head_alone_comes_first_and_always():
    assert named(BLOCKS) == [()]
    assert named((), runs=(1,), pairs=True, full=True) == [()]
    assert candidates.sets(BLOCKS, candidates.make())[0] == ()


def test_a_profile_is_each_block_alone_and_all_together():
    singles = [(block,) for block in BLOCKS]
    found = candidates.sets(BLOCKS, candidates.make())
    assert found == [(), *singles, BLOCKS]


@given(st.integers(0, 6), st.integers(1, 7))
def test_runs_are_the_sets_without_a_gap(count, length):
    blocks = tuple("abcdef"[:count])
    expected = [
        one
        for one in itertools.combinations(blocks, length)
        if "".join(one) in "abcdef"
    ]
    assert candidates.runs(blocks, length) == expected
    assert named(blocks, runs=(length,)) == [(), *expected]


def test_pairs_are_all_pairs_in_order():
    found = named("abcd", pairs=True)
    assert found[1:] == [tuple(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")]


def test_runs_come_as_asked_then_pairs_then_everything_and_each_set_once():
    found = named("abc", runs=(2, 1, 2), pairs=True, full=True)
    wanted = ["", "ab", "bc", "a", "b", "c", "ac", "abc"]
    assert found == [tuple(one) for one in wanted]
    assert named("ab", runs=(2,), pairs=True, full=True) == [(), ("a", "b")]
    assert named("a", runs=(1,), full=True) == [(), ("a",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": (1, 0)}, r"candidates.runs=\(1, 0\); lengths are 1 or more"),
        ({"runs": [-1]}, r"candidates.runs=\(-1,\); lengths are 1 or more"),
        ({"reinitialise": "all"}, "candidates.reinitialise='all' is not known; "),
        ({"reinitialise": "train"}, "did you mean 'trained'"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        candidates.make(**options)
    assert "\n" not in str(error.value)


@given(st.lists(st.booleans(), max_size=6))
def test_a_round_changes_one_item_in_the_order_of_the_network(flags):
    items = tuple("abcdef"[: len(flags)])
    current = tuple(item for item, flag in zip(items, flags, strict=True) if flag)
    rest = [item for item in items if item not in current]
    for direction, changed in (("forward", rest), ("backward", current)):
        found = candidates.changes(items, current, direction)
        assert [{*one} ^ {*current} for one in found] == [{item} for item in changed]
        assert all(list(one) == sorted(one) for one in found)


def test_all_runs_are_tried_once_the_shorter_first():
    found = candidates.changes(tuple("abc"), (), "contiguous")
    assert found == [tuple(run) for run in ("a", "b", "c", "ab", "bc", "abc")]
    assert candidates.changes(tuple("abc"), ("a",), "contiguous") == []
