"""Splits: who is in training, validation and test, decided by labels and a seed.

Labels are int arrays `[N]`, or float arrays where the label is a number: these are
drawn by `strata` as if they were classes. Every function here gives sorted index arrays
and the same ones for the same arguments.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from subtune_jax.core.contracts import Split, Task

Read = Callable[[int], dict[str, np.ndarray]]
BINS = 10


def strata(labels: np.ndarray) -> np.ndarray:
    """Integers `[N]`: the class of each example, or of numbers the tenth by rank.

    Integers are returned as they are. Equal numbers are in the same tenth, that of the
    first of them.
    """
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.floating):
        return labels
    smaller = np.searchsorted(np.sort(labels), labels)  # how many there are
    return smaller * BINS // max(len(labels), 1)


def subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the N examples, each class, or tenth of numbers, with its share.

    Shares are rounded by largest remainder, ties to the lowest class; when `count`
    reaches the number of classes, none is left out. With the same seed, a larger
    share of a class contains a smaller one.

    Raises:
      ValueError: `count` is outside [0, N].
    """
    labels = strata(labels)
    if not 0 <= count <= len(labels):
        raise ValueError(f"count={count} is outside [0, {len(labels)}] examples")
    classes, sizes = np.unique(labels, return_counts=True)
    rng = np.random.default_rng(seed)
    parts = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, _quotas(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate([np.zeros(0, int), *parts]))


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many of each class; all in integers, so that ties are ties."""
    total = int(sizes.sum())
    if not total:
        return sizes
    quotas = sizes * count // total
    if count >= len(sizes):
        quotas = np.maximum(quotas, 1)
    while quotas.sum() < count:
        quotas[np.argmax(sizes * count - quotas * total)] += 1
    while quotas.sum() > count:  # the classes lifted to one took too many
        surplus = np.where(quotas > 1, quotas * total - sizes * count, -(2**62))
        quotas[np.argmax(surplus)] -= 1
    return quotas


def stratified(
    labels: np.ndarray,
    parts: Sequence[float] | Sequence[int],
    seed: int,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Disjoint parts that together hold all N examples, each class in every part.

    Args:
      labels: `[N]`; numbers are classes by `strata`.
      parts: integers that sum to N, or fractions that sum to 1 (rounded by largest
        remainder, ties to the first). Classes with fewer examples than there are
        parts go to the first ones.
      seed: of the draw.
      groups: `[N]`, any values; examples of one group stay together, and then
        fractions are of groups. A group counts for the class of its first example.

    Returns:
      A sorted index array for each part.

    Raises:
      ValueError: `parts` do not sum to the whole, or are counts beside `groups`.
    """
    labels = np.asarray(labels)
    if groups is not None:
        _, first, member = np.unique(groups, return_index=True, return_inverse=True)
        if all(isinstance(part, int | np.integer) for part in parts):
            raise ValueError(f"parts={list(parts)} are counts; groups need fractions")
        pieces = stratified(labels[first], parts, seed)
        return tuple(np.flatnonzero(np.isin(member, piece)) for piece in pieces)
    labels, rest = strata(labels), np.arange(len(labels))
    pieces = []
    for count in _counts(parts, len(labels)):
        piece = rest[subset(labels[rest], count, seed)]
        pieces.append(piece)
        rest = np.setdiff1d(rest, piece, assume_unique=True)
    return tuple(pieces)


def _counts(parts: Sequence[float] | Sequence[int], total: int) -> list[int]:
    if all(isinstance(part, int | np.integer) for part in parts):
        if sum(parts) != total or min(parts) < 0:
            raise ValueError(f"parts={list(parts)} do not sum to {total} examples")
        return [int(part) for part in parts]
    if abs(sum(parts) - 1) > 1e-9 or min(parts) < 0:
        raise ValueError(f"parts={list(parts)} do not sum to 1")
    shares = np.array(parts) * total
    counts = np.floor(shares + 1e-9).astype(int)
    order = np.argsort(-(shares - counts).round(9), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts.tolist()


def checked(labels: Sequence[int] | np.ndarray, classes: int, name: str) -> np.ndarray:
    """`labels` as int32 `[N]`; ValueError if one is outside [0, `classes`)."""
    array = np.asarray(labels).reshape(-1)
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        what = f"{name}: label {array[wrong][0]} of example {np.argmax(wrong)}"
        raise ValueError(f"{what} is outside [0, {classes})")
    return array.astype(np.int32)


def numbers(labels: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """`labels` as float32 `[N]`; ValueError if one is not finite."""
    with np.errstate(over="ignore"):  # what is too large for float32 is told below
        array = np.asarray(labels, np.float32).reshape(-1)
    wrong = ~np.isfinite(array)
    if wrong.any():
        what = f"{name}: label {array[wrong][0]} of example {np.argmax(wrong)}"
        raise ValueError(f"{what} is no finite number")
    return array


def distinct(contents: Sequence[Hashable], labels: np.ndarray) -> np.ndarray:
    """Which examples to keep so that no two have the same content.

    The first of those that are the same; none of them where their labels differ.
    """
    labels_of: dict[Hashable, set[int]] = {}
    for content, label in zip(contents, labels, strict=True):
        labels_of.setdefault(content, set()).add(int(label))
    done = {content for content, kinds in labels_of.items() if len(kinds) > 1}
    kept = []
    for index, content in enumerate(contents):
        if content not in done:
            done.add(content)
            kept.append(index)
    return np.array(kept, int)


def part(read: Read, labels: np.ndarray, indices: np.ndarray) -> Split:
    """The split of those examples of a set that `indices` names, in that order."""
    return Split(lambda index: read(int(indices[index])), labels[indices])


def task(
    name: str,
    classes: Sequence[str],
    read: Read,
    labels: np.ndarray,
    *,
    fractions: Sequence[float],
    seed: int,
    groups: np.ndarray | None = None,
) -> Task:
    """A task whose three splits are cut from one set; see `stratified`.

    Labels in floating point stay numbers: the loss and metric of a regression are the
    caller's to set.

    Raises:
      ValueError: a label is outside the classes, or `fractions` are not three.
    """
    if np.issubdtype(np.asarray(labels).dtype, np.floating):
        labels = numbers(labels, name)
    else:
        labels = checked(labels, len(classes), name)
    if len(fractions) != 3:
        what = f"fractions={tuple(fractions)}"
        raise ValueError(f"{what}; there are three: train, validation and test")
    pieces = stratified(labels, [float(part) for part in fractions], seed, groups)
    train, validation, test = (part(read, labels, piece) for piece in pieces)
    return Task(name, tuple(classes), train, validation, test)
