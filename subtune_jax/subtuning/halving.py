"""Successive halving: candidates that fall behind early are not trained to the end.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", arXiv:1502.07943 (algorithm 1).
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Reached(NamedTuple):
    """How far a candidate was trained, and its value there."""

    steps: int
    value: float


def best(
    items: Sequence[Item],
    value: Callable[[Item, int], float],
    steps: int,
    factor: int,
    least: int = 1,
) -> dict[Item, Reached]:
    """What each item reached; at least one was trained for all `steps`.

    In every round all items left are trained to the round's step, and the better
    1 / `factor` of them (at least one) go on; ties go to the earlier item. There are
    as many rounds as it takes to leave one, or fewer where the first would have less
    than `least` steps. The last ends at `steps`, and each has `factor` times the steps
    of the one before, rounded down.

    Args:
      items: to choose among.
      value: (item, steps) -> value after so many steps; higher is better. Called with
        rising steps.
      steps: of a whole training.
      factor: 2 or more.
      least: steps of the first round, 1 or more; what comes out of the first few says
        nothing yet, least of all while the learning rate warms up.

    >>> best("abc", lambda item, steps: "cab".index(item), steps=9, factor=3)
    {'a': Reached(steps=3, value=1), 'b': Reached(steps=9, value=2), 'c': ...}
    """
    reached: dict[Item, Reached] = {}
    rounds = _cuts(len(items), steps // max(least, 1), factor)
    left = list(items)
    for number in reversed(range(rounds + 1)):
        until = steps // factor**number
        for item in left:
            reached[item] = Reached(until, value(item, until))
        ranked = sorted(left, key=lambda item: -reached[item].value)
        survivors = ranked[: math.ceil(len(left) / factor)]
        left = [item for item in left if item in survivors]
    return reached


def leader(reached: dict[Item, Reached]) -> Item:
    """The best of those that were trained longest; ties go to the earlier one."""
    longest = max(each.steps for each in reached.values())
    finished = {i: each for i, each in reached.items() if each.steps == longest}
    return max(finished, key=lambda item: finished[item].value)


def _cuts(count: int, steps: int, factor: int) -> int:
    """How often `count` can be cut before one is left and `steps` before none is."""
    cuts = 0
    while count > 1 and steps >= factor:
        count, steps, cuts = math.ceil(count / factor), steps // factor, cuts + 1
    return cuts
