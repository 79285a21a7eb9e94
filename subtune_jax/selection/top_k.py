"""Top-k: the largest elements of plain arrays, exactly and without sorting them.

Of equal elements the first ones win. Scores are read once, a chunk at a time: a sample
says between which two bounds the last element to be chosen lies, what is above both is
marked at once, and only what lies between them is looked at again. The bounds decide
what that costs, never what is chosen.

Reading 86 M elements takes little longer than touching as many new bytes for their
marks, so marks are parts of one array, which the system hands out in large pages, and
NaN is not looked for: it falls between any two bounds. Many elements are read by
several threads: NumPy lets go of Python's lock.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from subtune_jax.selection import score_arrays

CHUNK = 1 << 20  # elements looked at together: smaller ones cost calls, larger cache
FEW = 200  # one of so many elements, or fewer, are looked at one by one
Piece = tuple[np.ndarray, np.ndarray]  # elements, and their marks


def top(rows: Sequence[np.ndarray], marks: Sequence[np.ndarray], count: int) -> None:
    """Marks the `count` largest elements of all `rows`, vectors of one type.

    Args:
      rows: of any lengths.
      marks: of the same lengths, anything; all their elements are set.
      count: from 0 to the number of elements.

    Raises:
      FloatingPointError: an element is NaN.
    """
    pieces = _pieces(rows, marks)
    for wide in itertools.count(1):  # once, unless the sample misleads
        low, high = _bracket(rows, count, 3**wide)
        if low < high and _choose_between(pieces, count, low, high):
            return
        # The sample has ties at a bound, or misleads.
        ties = dict.fromkeys((low, high))
        if any(_choose_down_to(pieces, count, tie) for tie in ties):
            return


def _pieces(rows: Sequence[np.ndarray], marks: Sequence[np.ndarray]) -> list[Piece]:
    return [
        (row[start : start + CHUNK], mark[start : start + CHUNK])
        for row, mark in zip(rows, marks, strict=True)
        for start in range(0, row.size, CHUNK)
    ]


def _bracket(
    rows: Sequence[np.ndarray], count: int, deviations: float
) -> tuple[Any, Any]:
    """Bounds of the `count`-th largest element, from one element in 1024.

    They hold it unless the sample is `deviations` standard deviations off. Few
    elements need no upper bound: to list them all costs less than to tell them apart.
    """
    ends = np.cumsum([row.size for row in rows], dtype=int)
    total = int(ends[-1]) if len(rows) else 0
    if not 0 < count < total:
        return (np.inf, np.inf) if count == 0 else (-np.inf, -np.inf)
    step = min(1024, total >> 12)
    if step < 4:
        return -np.inf, np.inf
    # One at random of every `step`: the draw is sorted, and repeats no period.
    places = np.arange(0, total - step + 1, step)
    places += np.random.default_rng(0).integers(0, step, places.size)
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    starts = [0, *ends[:-1]]
    sample = np.concatenate(
        [row[p - s] for row, p, s in zip(rows, parts, starts, strict=True)]
    )
    rate = 1 - count / total
    spread = deviations * (math.sqrt(sample.size * rate * (1 - rate)) + 1)
    low, high = int(rate * sample.size - spread), int(rate * sample.size + spread)
    inner = [place for place in (low, high) if 0 <= place < sample.size]
    if inner:
        sample.partition(inner)
    bounded = high < sample.size and count > total // FEW
    return sample[low] if low >= 0 else -np.inf, sample[high] if bounded else np.inf


def _choose_between(pieces: list[Piece], count: int, low: Any, high: Any) -> bool:
    """Marks the `count` largest if the last of them lies between the bounds.

    Returns:
      Whether it does; if not, the marks are wrong.
    """

    def look(values: np.ndarray, out: np.ndarray) -> tuple[int, Any, Any]:
        below, above = values <= low, 0
        if high < np.inf:
            np.greater_equal(values, high, out=out)
            above = int(np.count_nonzero(out))
            inside = np.equal(below, out, out=below)  # neither: both are false
        else:
            inside = np.logical_not(below, out=below)
            out[:] = False
        found = np.flatnonzero(inside)
        return above, found, values[found]

    looks = score_arrays.each(look, pieces)
    need = count - sum(above for above, _, _ in looks)
    inside = np.concatenate([values for _, _, values in looks] or [np.empty(0)])
    score_arrays.check_numbers(
        inside
    )  # which is neither below nor above: it is all in here
    if not 0 <= need <= inside.size:
        return False
    if need == 0:
        return True
    threshold = np.partition(inside, inside.size - need)[inside.size - need]
    keep = inside > threshold
    ties = np.flatnonzero(inside == threshold)
    keep[ties[: need - np.count_nonzero(keep)]] = True
    start = 0
    for (_, out), (_, found, _) in zip(pieces, looks, strict=True):
        out[found[keep[start : start + found.size]]] = True
        start += found.size
    return True


def _choose_down_to(pieces: list[Piece], count: int, tie: Any) -> bool:
    """Marks the `count` largest if the last of them equals `tie`.

    Its equals may be most of the elements, so their places are not listed.

    Returns:
      Whether it does; if not, the marks are wrong.
    """

    def look(values: np.ndarray, out: np.ndarray) -> tuple[int, int]:
        score_arrays.check_numbers(values)
        np.greater_equal(values, tie, out=out)
        equal = np.count_nonzero(values == tie)
        return int(np.count_nonzero(out)), int(equal)

    looks = score_arrays.each(look, pieces)
    excess = sum(reach for reach, _ in looks) - count
    if not 0 <= excess <= sum(equal for _, equal in looks):
        return False
    looked = list(zip(pieces, looks, strict=True))
    for (values, out), (_, equal) in reversed(looked):
        if excess == 0:
            break
        if equal:
            last = np.flatnonzero(values == tie)[-excess:]
            out[last] = False
            excess -= last.size
    return True
