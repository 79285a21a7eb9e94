"""Budgets: how many to mark of those there are, be they elements, columns or heads."""

from collections.abc import Callable
from typing import Any

ELEMENT_BYTES = 8  # of a delta: a value of 4 bytes, a position of at most 4
Budget = Callable[[int, str], int]  # (how many there are, where) -> how many to mark


def one_of(least: int = 1, **given: Any) -> Budget:
    """The one budget that is not None.

    Args:
      least: the smallest count.
      **given: `fraction` and `budget_bytes` are what they are called; every other
        name is that of a count.

    Raises:
      ValueError: none or two are given; from the budget, more than there is.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{listed}; exactly one of them is needed")
    name, value = names[0], given[names[0]]
    if name == "fraction":
        return lambda size, where: share(value, size)
    if name == "budget_bytes":
        return lambda size, where: fitting(value, size)
    return lambda size, where: whole(name, value, least, size, where)


def share(fraction: float, size: int) -> int:
    """`fraction` of `size` elements, half rounded up; at least 1 unless it is 0.

    >>> share(0.25, 10), share(0.001, 10), share(0.0, 10)
    (3, 1, 0)

    Raises:
      ValueError: `fraction` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} is outside [0, 1]")
    return min(size, max(int(fraction * size + 0.5), int(fraction > 0)))


def fitting(budget_bytes: int, size: int) -> int:
    """How many of `size` elements fit in `budget_bytes` of a delta; `size` at most.

    An element costs 8 bytes: a float32 value and a position. That is an upper bound:
    `delta` stores positions as gaps, each of 1 byte where all gaps of a leaf are below
    256, of 2 where they are below 65,536, and none where most of a leaf changed. The
    file's names of leaves and its header come on top.

    >>> fitting(100, 1000), fitting(100, 10)
    (12, 10)

    Raises:
      ValueError: not one element fits, or the bytes are no whole number.
    """
    given = whole("budget_bytes", budget_bytes, ELEMENT_BYTES, float("inf"))
    return min(size, given // ELEMENT_BYTES)


def whole(name: str, value: Any, low: int, high: float, where: str = "") -> int:
    """`value` as an int.

    Raises:
      ValueError: it is no whole number, or outside [low, high]; the message ends in
        `where`.
    """
    fraction = value % 1 != 0  # so it is of infinities and of NaN
    if fraction or not low <= value <= high:
        kind = "no whole number or " if fraction else ""
        raise ValueError(f"{name}={value} is {kind}outside [{low}, {high}]{where}")
    return int(value)
