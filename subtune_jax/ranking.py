"""Ranking: the largest elements of plain arrays, exactly and without sorting them.

Of equal elements the first ones win; NaN is the caller's to refuse. All elements that
reach a threshold are marked, and the last ties that are too many are unmarked again.
The thresholds are exact: guesses only bound where they are looked for.
"""

import math
from typing import Any

import numpy as np

CHUNK = 1 << 17  # elements looked at together: they stay in the processor's cache


def top(rows: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Marks the `count` largest elements of all `rows`, vectors of one type."""
    marks = [np.zeros(row.shape, bool) for row in rows]
    if count == 0:
        return marks
    low, high = _bracket(rows, count)
    threshold, excess = _mark(rows, marks, count, low, high)
    if threshold is None:  # the bounds were wrong, which is rare
        threshold, excess = _mark(rows, marks, count, -np.inf, np.inf)
    for row, mark in zip(reversed(rows), reversed(marks), strict=True):
        if excess == 0:
            break
        ties = np.flatnonzero(row == threshold)[-excess:]
        mark[ties] = False
        excess -= ties.size
    return marks


def top_of_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Marks the `k` largest elements of every column of `scores` `[n, columns]`."""
    if k == 0 or scores.size == 0:
        return np.zeros(scores.shape, bool)
    threshold = _column_thresholds(scores, k)
    marks = scores >= threshold
    if np.count_nonzero(marks) > k * scores.shape[1]:
        crowded = np.flatnonzero(np.count_nonzero(marks, axis=0) > k)
        some = marks[:, crowded]
        ties = scores[:, crowded] == threshold[crowded]
        excess = np.count_nonzero(some, axis=0) - k
        from_end = np.cumsum(ties[::-1], axis=0, dtype=np.int32)[::-1]
        marks[:, crowded] = some & ~(ties & (from_end <= excess))
    return marks


def _bracket(rows: list[np.ndarray], count: int) -> tuple[Any, Any]:
    """Bounds of the `count`-th largest element, from a sample: right almost surely."""
    total = sum(row.size for row in rows)
    size = max(1 << 12, total >> 10)
    if total <= 4 * size:
        return -np.inf, np.inf
    draw = np.random.default_rng(0).integers
    some = [row[draw(0, row.size, size * row.size // total)] for row in rows]
    sample = np.sort(np.concatenate(some))
    rate = 1 - count / total
    spread = 6 * math.sqrt(sample.size * rate * (1 - rate)) + 6  # six deviations
    low, high = rate * sample.size - spread, rate * sample.size + spread
    return (
        sample[int(low)] if low >= 0 else -np.inf,
        sample[int(high)] if high < sample.size else np.inf,
    )


def _mark(
    rows: list[np.ndarray], marks: list[np.ndarray], count: int, low: Any, high: Any
) -> tuple[Any, int]:
    """Marks what is no smaller than the `count`-th largest element, in one reading.

    Returns:
      That element and how many marks are too many; None if it is not in [low, high].
    """
    above, places, values = 0, [], []
    for row, mark in zip(rows, marks, strict=True):
        for start in range(0, row.size, CHUNK):
            chunk, out = row[start : start + CHUNK], mark[start : start + CHUNK]
            np.greater_equal(chunk, low, out=out)
            found = np.flatnonzero(out & (chunk <= high))
            above += int(np.count_nonzero(out)) - found.size
            places.append((out, found))
            values.append(chunk[found])
    inside = np.concatenate(values)
    if not above < count <= above + inside.size:
        return None, 0
    place = inside.size - (count - above)
    inside.partition(place)
    threshold = inside[place]
    for (out, found), value in zip(places, values, strict=True):
        out[found] = value >= threshold
    return threshold, above + int(np.count_nonzero(inside >= threshold)) - count


def _column_thresholds(scores: np.ndarray, k: int) -> np.ndarray:
    """The `k`-th largest element of every column."""
    if k == 1:
        return scores.max(0)
    rows, columns = scores.shape
    step = rows // (4 * k)
    if step > 1:
        # Among the maxima of groups of rows, the k-th largest is a lower bound, and
        # little lies above it. Rows left over only make it lower.
        best = scores[: rows // step * step].reshape(-1, step, columns).max(1)
        floor = np.partition(best, len(best) - k, axis=0)[len(best) - k]
        places = np.flatnonzero(scores >= floor)
        if places.size <= scores.size // 4:
            column, values = places % columns, scores.reshape(-1)[places]
            values = values[np.lexsort((values, column))]
            return values[np.cumsum(np.bincount(column, minlength=columns)) - k]
    wide = np.array(scores.T, order="C")  # a copy: `partition` works in place
    wide.partition(rows - k, axis=1)
    return wide[:, rows - k]
