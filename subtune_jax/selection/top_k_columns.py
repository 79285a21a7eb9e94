"""Top-k by column: the largest elements of every column of plain arrays, exactly.

As `top_k`: of equal elements the first ones win, and no array is sorted.
"""

from collections.abc import Sequence

import numpy as np

from subtune_jax.selection import score_arrays

STEP = 8  # rows of which at first only the largest elements are kept


def top(
    arrays: Sequence[np.ndarray], marks: Sequence[np.ndarray], ks: Sequence[int]
) -> None:
    """Marks the `ks[i]` largest elements of every column of `arrays[i]`.

    Args:
      arrays: each `[n, columns]`.
      marks: of the same shapes, anything; all their elements are set.
      ks: each from 0 to n.

    Raises:
      FloatingPointError: an element is NaN.
    """
    score_arrays.each(_mark_columns, list(zip(arrays, marks, ks, strict=True)))


def _mark_columns(scores: np.ndarray, marks: np.ndarray, k: int) -> None:
    if k == 0 or scores.size == 0:
        marks[:] = False
        return score_arrays.check_numbers(scores)
    if k == 1 and len(scores) >= 2 * STEP and _mark_best(scores, marks):
        return None
    threshold = _column_thresholds(scores, k)
    np.greater_equal(scores, threshold, out=marks)
    if np.count_nonzero(marks) > k * scores.shape[1]:
        crowded = np.flatnonzero(np.count_nonzero(marks, axis=0) > k)
        some = marks[:, crowded]
        ties = scores[:, crowded] == threshold[crowded]
        excess = np.count_nonzero(some, axis=0) - k
        from_end = np.cumsum(ties[::-1], axis=0, dtype=np.int32)[::-1]
        marks[:, crowded] = some & ~(ties & (from_end <= excess))


def _mark_best(scores: np.ndarray, marks: np.ndarray) -> bool:
    """Marks the largest element of every column, in one reading.

    Returns:
      Whether it did: it does not where much is equal.
    """
    groups, columns = len(scores) // STEP, scores.shape[1]
    grouped, best = _group_maxima(scores, STEP)
    rest = scores[STEP * groups :]
    threshold = best.max(0)
    if len(rest):
        np.maximum(threshold, rest.max(0), out=threshold)
    score_arrays.check_numbers(threshold)
    found = np.flatnonzero(best == threshold)
    if found.size > 2 * columns:
        return False
    column = found % columns
    step = (grouped[:, found] == threshold[column]).argmax(0)
    first = np.full(columns, len(scores))
    np.minimum.at(first, column, step * groups + found // columns)
    none = np.flatnonzero(first == len(scores))
    if none.size:
        later = (rest[:, none] == threshold[none]).argmax(0)
        first[none] = STEP * groups + later
    marks[:] = False
    marks[first, np.arange(columns)] = True
    return True


def _column_thresholds(scores: np.ndarray, k: int) -> np.ndarray:
    """The `k`-th largest element of every column."""
    if k == 1:
        best = scores.max(0)
        score_arrays.check_numbers(best)
        return best
    rows, columns = scores.shape
    step = rows // (4 * k)
    if step > 1:
        # Among the maxima of groups of rows, the k-th largest is a lower bound, and
        # little lies above it. Rows left over only make it lower.
        _, best = _group_maxima(scores, step)
        score_arrays.check_numbers(best)
        score_arrays.check_numbers(scores[rows // step * step :])
        floor = np.partition(best, len(best) - k, axis=0)[len(best) - k]
        places = np.flatnonzero(scores >= floor)
        if places.size <= scores.size // 4:
            column, values = places % columns, scores.reshape(-1)[places]
            values = _sorted_by_column(values, column, columns)
            return values[np.cumsum(np.bincount(column, minlength=columns)) - k]
    score_arrays.check_numbers(scores)
    wide = np.array(scores.T, order="C")  # a copy: `partition` works in place
    wide.partition(rows - k, axis=1)
    return wide[:, rows - k]


def _group_maxima(scores: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows as `[step, groups * columns]`, and their maxima `[groups, columns]`.

    Row r is in group r % groups: so NumPy compares long vectors. The last rows, fewer
    than `step`, may be left out.
    """
    groups, columns = len(scores) // step, scores.shape[1]
    grouped = scores[: step * groups].reshape(step, groups * columns)
    return grouped, grouped.max(0).reshape(groups, columns)


def _sorted_by_column(
    values: np.ndarray, column: np.ndarray, columns: int
) -> np.ndarray:
    """Values in ascending order within each column, column after column."""
    order = np.argsort(values)
    # Stable sorts of small integers are radix sorts: a fraction of `lexsort`'s time.
    small = column[order].astype(np.min_scalar_type(columns))
    return values[order[np.argsort(small, kind="stable")]]
