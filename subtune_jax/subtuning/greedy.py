"""Greedy search for the set of blocks to train, over any function that values a set.

Source: Kaplun et al., "Less is More: Selective Layer Finetuning with SubTuning",
arXiv:2302.06354. The text of its algorithm was not at hand: rule `paper` follows
accounts of it (add the best block, stop when its gain falls below epsilon), rule
`released` its code (`src/greedy_subset_selection.py`): go on through rounds that gain
nothing, stop only when the value falls more than epsilon below the best seen, and
return the best set seen. The code's default epsilon is 0.01; the one search that it
ships goes backward from everything.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from subtune_jax.core.registry import check_choice
from subtune_jax.subtuning import candidates
from subtune_jax.subtuning.candidates import Set

Values = Callable[[Sequence[Set]], Mapping[Set, float]]
Cost = Callable[[Set], Mapping[str, float]]
DIRECTIONS = ("forward", "backward", "both", "contiguous")
RULES = ("paper", "released")
PER = ("nothing", "parameters", "flops")


class GreedyOptions(NamedTuple):
    """How to search; see `make`."""

    direction: str
    rule: str
    epsilon: float
    max_items: int
    max_parameters: int
    max_flops: float
    per: str
    granularity: str
    among: str


class SearchResult(NamedTuple):
    """What a search did.

    Attributes:
      start: the set it began with, and `start_value`.
      rounds: `{"candidates": {set: value}, "chosen": set, "value", "kept"}` each;
        `kept` is false for the last round, whose change the rule refused.
      selected: the set that is returned, and its `value`.
      stop: why it ended.
    """

    start: Set
    start_value: float
    rounds: list[dict[str, Any]]
    selected: Set
    value: float
    stop: str


def make(
    direction: str = "forward",
    rule: str = "paper",
    epsilon: float = 0.005,
    max_items: int = 0,
    max_parameters: int = 0,
    max_flops: float = 0.0,
    per: str = "nothing",
    granularity: str = "blocks",
    among: str = ".*",
) -> GreedyOptions:
    """Options of a search.

    Args:
      direction: `forward` from the head alone; `backward` from everything; `both` from
        the better of these, the head on a tie or if everything is above a limit;
        `contiguous` (surgical fine-tuning, arXiv:2210.11466) values all runs of items
        in one round and takes the best one: by rule `paper` if it is worth epsilon, by
        `released` if it is better than the head alone.
      rule: when to stop, `paper` or `released`; see the top of this file.
      epsilon: of the rule, in units of the metric; differences are rounded to 1e-9.
      max_items: most items in the set; 0 for no limit. The same below.
      max_parameters: most trained elements of the base.
      max_flops: most operations of a training step, those of the trunk not counted.
      per: what a gain is divided by, except going backward, to rank the candidates
        that the rule keeps: `nothing`, the `parameters` or the `flops` that it adds.
      granularity: `blocks`, or the `arrays` inside blocks.
      among: regular expression of the blocks or arrays to choose among, in full.

    Raises:
      ValueError: an unknown name or a number out of its range.
    """
    check_choice("greedy.direction", direction, DIRECTIONS)
    check_choice("greedy.rule", rule, RULES)
    check_choice("greedy.per", per, PER)
    check_choice("greedy.granularity", granularity, ("blocks", "arrays"))
    limits = {"max_items": max_items, "max_parameters": max_parameters}
    for name, value in {**limits, "max_flops": max_flops, "epsilon": epsilon}.items():
        if not value >= 0:
            raise ValueError(f"greedy.{name}={value}; it must be 0 or more")
    return GreedyOptions(
        direction, rule, epsilon, max_items, max_parameters, max_flops, per,
        granularity, among,
    )  # fmt: skip


def search(
    items: Sequence[str],
    values: Values,
    options: GreedyOptions,
    cost: Cost = lambda _: {},
) -> SearchResult:
    """Adds (or removes) one item a round, the best one, until the rule says stop.

    Ties go to the earlier item, or to the shorter and then the earlier run. Backward,
    rule `paper` removes while the value falls by less than epsilon: an item worth it
    stays. While a set is above a limit, items are removed whatever the rule says.

    Args:
      items: to choose among, in the order of the network.
      values: sets -> the value of each that was trained to the end, one at least;
        higher is better. It may leave out hopeless ones.
      options: from `make`.
      cost: set -> `parameters` and `flops`, read where `options` ask for them.

    Raises:
      ValueError: the head alone is above a limit; nothing was valued.
    """
    check(options, cost)
    options, start, value = _start(tuple(items), values, options, cost)
    result = SearchResult(start, value, [], start, value, "")
    while not result.stop:
        result = _round(result, tuple(items), values, options, cost)
    return result


def check(options: GreedyOptions, cost: Cost) -> None:
    """Refuses, by ValueError, a limit that the head alone is above."""
    if not fits((), options, cost):
        limit = f"greedy.max_flops={options.max_flops:g}"
        raise ValueError(f"{limit}; the head alone takes {cost(())['flops']:g}")


def fits(names: Set, options: GreedyOptions, cost: Cost) -> bool:
    """Is the set within all limits?"""
    few = not options.max_items or len(names) <= options.max_items
    limits = {"parameters": options.max_parameters, "flops": options.max_flops}
    return few and all(cost(names)[by] <= limits[by] for by in limits if limits[by])


def _start(
    items: Set, values: Values, options: GreedyOptions, cost: Cost
) -> tuple[GreedyOptions, Set, float]:
    """The options with one direction, the set to start from and its value."""
    way = options.direction
    ends: dict[str, Set] = {way: items if way == "backward" else ()}
    if way == "both":
        ends = {"forward": ()}
        if items and fits(items, options, cost):
            ends["backward"] = items
    known = values([*ends.values()])
    best = max(ends, key=lambda way: round(known.get(ends[way], -math.inf), 9))
    return options._replace(direction=best), ends[best], known[ends[best]]


def _round(
    result: SearchResult, items: Set, values: Values, options: GreedyOptions, cost: Cost
) -> SearchResult:
    """The result after one more round, or with the reason why there is none."""
    rounds = result.rounds
    current = rounds[-1]["chosen"] if rounds else result.start
    sets = candidates.changes(items, current, options.direction)
    if options.direction != "backward":
        sets = [names for names in sets if fits(names, options, cost)]
    if not sets:
        return result._replace(stop=_ended(current, items, options.direction))
    known = values(sets)
    valued = {names: known[names] for names in sets if names in known}
    best = _best(valued, current, result, options, cost)
    value, over = valued[best], not fits(current, options, cost)
    kept = over or _keeps(options, result.value, value)
    row = {"candidates": valued, "chosen": best, "value": value, "kept": kept}
    result = result._replace(rounds=[*rounds, row])
    if not kept:
        return result._replace(stop=_refusal(options, result.value, value))
    if over or options.rule == "paper" or _gain(value, result.value) > 0:
        result = result._replace(selected=best, value=value)
    return result


def _best(
    valued: Mapping[Set, float],
    current: Set,
    result: SearchResult,
    options: GreedyOptions,
    cost: Cost,
) -> Set:
    """The best change of the set `current`, those that the rule keeps first."""
    rounds = result.rounds
    level = rounds[-1]["value"] if rounds else result.start_value

    def worth(names: Set) -> tuple[bool, float]:
        keeps = _keeps(options, result.value, valued[names])
        gain = _gain(valued[names], level)
        # A loss is not made better by being spread over a high cost.
        if options.per == "nothing" or gain <= 0:
            return keeps, gain
        more = cost(names)[options.per] - cost(current)[options.per]
        return keeps, gain / max(more, 1.0)  # going backward it is never more

    return max(valued, key=worth)


def _gain(value: float, reference: float) -> float:
    """The difference; 0.205 is 0.005 more than 0.2, of which floats are not sure."""
    return round(value - reference, 9)


def _keeps(options: GreedyOptions, reference: float, value: float) -> bool:
    """Does the rule go on? `reference` is the last value, or the best one seen."""
    gain = _gain(value, reference)
    if options.rule == "released":
        return gain >= -options.epsilon
    backward = options.direction == "backward"
    return -gain < options.epsilon if backward else gain >= options.epsilon


def _ended(current: Set, items: Set, direction: str) -> str:
    if direction == "backward":
        return "nothing is left to remove"
    if direction == "contiguous" and current:
        return "every run within the limits was valued"
    short = len(current) < len(items)
    return "no further set is within the limits" if short else "everything was added"


def _refusal(options: GreedyOptions, reference: float, value: float) -> str:
    what = "best seen" if options.rule == "released" else "last"
    change = f"{value - reference:+.4f} on the {what} {reference:.4f}"
    return f"rule {options.rule!r}, epsilon {options.epsilon:g}: {change}"
