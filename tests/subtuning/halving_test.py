"""Promises of successive halving, against a slow simulation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.subtuning import halving
from subtune_jax.subtuning.halving import Reached


class Script:
    """Values by (item, steps), drawn as they are asked for; keeps what was asked."""

    def __init__(self, draw):
        self.draw, self.known, self.asked = draw, {}, []

    def __call__(self, item, steps):
        self.asked.append((item, steps))
        return self.known.setdefault((item, steps), self.draw())


def slow(items, known, steps, factor):
    """What each item reached: a list of the rounds' steps, and one cut after another.

    The rounds are found backwards: from the last, each has 1 / factor of the steps of
    the next one, until one item less than `factor` would be left or no step.
    """
    ends, count = [steps], len(items)
    while count > 1 and ends[0] // factor >= 1:
        ends.insert(0, ends[0] // factor)
        count = -(-count // factor)
    reached, left = {}, list(items)
    for until in ends:
        for item in left:
            reached[item] = Reached(until, known[item, until])
        wanted = len(left) if until == ends[-1] else -(-len(left) // factor)
        while len(left) > wanted:  # the worst goes; of equal ones, the last
            worst = min(known[item, until] for item in left)
            left.remove([item for item in left if known[item, until] == worst][-1])
    return reached


@settings(deadline=None, max_examples=400)
@given(
    count=st.integers(0, 30),
    steps=st.integers(1, 100),
    factor=st.sampled_from([2, 3, 4, 50]),
    levels=st.sampled_from([1, 2, 1000]),
    rng=st.randoms(use_true_random=False),
)
def test_halving_is_cuts_one_after_another(count, steps, factor, levels, rng):
    items = [f"item {number}" for number in range(count)]
    value = Script(lambda: rng.randrange(levels))
    reached = halving.best(items, value, steps, factor)
    assert reached == slow(items, value.known, steps, factor)
    assert list(reached) == items
    assert len(value.asked) == len(set(value.asked))
    for item in items:
        own = [until for name, until in value.asked if name == item]
        assert own == sorted(own)
    finished = [item for item in items if reached[item].steps == steps]
    assert bool(finished) == bool(items)
    longest = {reached[item].steps for item in items}
    assert not items or max(longest) == steps


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_full_ladder_costs_as_much_in_every_round_but_the_first(factor, rounds):
    count, first, trained = factor**rounds, 7, {}
    value = Script(lambda: 0.5)
    halving.best(range(count), value, first * factor**rounds, factor)
    spent = 0
    for item, steps in value.asked:
        spent += steps - trained.get(item, 0)  # an item goes on from where it was
        trained[item] = steps
    # 1 / factor of the items, from 1 to factor times the steps.
    each = count // factor * first * (factor - 1)
    assert spent == first * count + rounds * each


def test_a_late_starter_is_lost_and_an_early_one_falls_back():
    values = {"late": {1: 0, 3: 9, 9: 9}, "early": {1: 5, 3: 1, 9: 9}}
    values |= {"steady": {1: 3, 3: 3, 9: 3}}
    values |= {f"poor {n}": {1: 1, 3: 1, 9: 1} for n in range(4)}
    found = halving.best([*values], lambda item, steps: values[item][steps], 9, 3)
    assert found["late"] == Reached(1, 0)
    assert found["early"] == Reached(3, 1)
    assert found["steady"] == Reached(9, 3)
    assert halving.leader(found) == "steady"


def test_of_equal_items_the_earlier_go_on():
    found = halving.best("abcd", lambda item, steps: 0.5, 8, 2)
    assert {item: each.steps for item, each in found.items()} == {
        "a": 8, "b": 4, "c": 2, "d": 2,
    }  # fmt: skip
    both = {"a": Reached(8, 0.5), "b": Reached(8, 0.5)}
    assert halving.leader(both) == "a"


@pytest.mark.parametrize("factor", [2, 10])
def test_one_item_is_trained_to_the_end_at_once(factor):
    value = Script(lambda: 0.5)
    assert halving.best("a", value, 8, factor) == {"a": Reached(8, 0.5)}
    assert value.asked == [("a", 8)]
    assert halving.best("", value, 8, factor) == {}


def test_too_few_steps_make_fewer_rounds_and_none_twice():
    value = Script(lambda: 0.5)
    found = halving.best(range(27), value, 4, 3)  # 1, 4: not 0, 0, 1, 4
    assert [steps for _, steps in value.asked] == [1] * 27 + [4] * 9
    assert sum(each.steps == 4 for each in found.values()) == 9
    value = Script(lambda: 0.5)
    halving.best(range(5), value, 1, 2)
    assert value.asked == [(item, 1) for item in range(5)]


@pytest.mark.parametrize(
    ("least", "steps"), [(1, [3, 9, 27]), (4, [9, 27]), (10, [27])]
)
def test_no_round_has_less_than_the_least_steps(least, steps):
    asked = set()

    def value(item, until):
        asked.add(until)
        return item

    halving.best(range(9), value, 27, 3, least)
    assert sorted(asked) == steps
