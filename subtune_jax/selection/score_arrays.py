"""Arrays of scores: on the host, read by neuron; how many of them are marked.

What all choices share: reading a tree of scores by path, budgets (how many to mark of
those there are, be they elements, columns or heads), arrays read as the inputs of
neurons, marks, threads.
"""

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from subtune_jax.core import trees

ELEMENT_BYTES = 8  # of a delta: a value of 4 bytes, a position of at most 4
MANY = 1 << 22  # elements that are worth starting threads for
Budget = Callable[[int, str], int]  # (how many there are, where) -> how many to mark


def read(scores: Any) -> dict[str, np.ndarray]:
    """Scores on the host by path, in float32 or float64."""
    leaves = {}
    for path, leaf in trees.leaves(scores).items():
        score = np.asarray(leaf)
        if score.dtype not in (np.float32, np.float64):
            wide = np.float32 if score.dtype.itemsize <= 2 else np.float64
            score = score.astype(wide)
        leaves[path] = score
    return leaves


def refuse_nan(leaves: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError that names the first array with NaN, if there is one."""
    for path, score in leaves.items():
        if score.size and np.isnan(score.max()):
            number = np.count_nonzero(np.isnan(score))
            raise ValueError(f"{number} NaN{where(path, score)}; scores are numbers")


def summed(
    leaves: Mapping[str, np.ndarray], sums: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`sums` if they are numbers.

    Raises:
      ValueError: a score is NaN, or an infinity was added to its opposite.
    """
    for path, each in sums.items():
        if np.isnan(each).any():
            refuse_nan(leaves)
            place = where(path, leaves[path]) if path in leaves else f" for {path!r}"
            raise ValueError(f"a sum of inf and -inf{place}; sums are numbers")
    return dict(sums)


def where(path: str, score: np.ndarray) -> str:
    """The end of an error message: which array it is about."""
    return f" for {path!r} {score.shape}" if path else f" for an array {score.shape}"


def output_axes(
    leaves: Mapping[str, np.ndarray], given: Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[int, ...]]:
    """Path -> the axes of the output neurons, none for vectors that are not `given`.

    Raises:
      ValueError: `given` names a leaf or an axis that is not there.
    """
    given = given or {}
    for path in given:
        if path not in leaves:
            raise ValueError(f"neuron_axes of {path!r}; {trees.nearest(path, leaves)}")
    outputs = {}
    for path, score in leaves.items():
        axes = given.get(path, (-1,) if score.ndim > 1 else ())
        ndim = score.ndim
        inside = [axis % ndim for axis in axes if -ndim <= axis < ndim]
        if len(set(inside)) != len(axes):
            what = f"neuron axes {tuple(axes)} are not axes"
            raise ValueError(f"{what}{where(path, score)}")
        outputs[path] = tuple(inside)
    return outputs


def columns_of(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """`[fan_in, neurons]` of the array whose `axes` are its output neurons."""
    moved = np.moveaxis(array, axes, range(array.ndim - len(axes), array.ndim))
    neurons = math.prod(moved.shape[array.ndim - len(axes) :])
    return moved.reshape(array.size // max(neurons, 1), neurons)


def columns(
    leaves: Mapping[str, np.ndarray], axes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """`columns_of` every array, by path."""
    return {path: columns_of(array, axes[path]) for path, array in leaves.items()}


def uncolumned(
    columns: Mapping[str, np.ndarray],
    leaves: Mapping[str, np.ndarray],
    axes: Mapping[str, Sequence[int]],
) -> dict[str, np.ndarray]:
    """Arrays of the shapes of `leaves` whose `columns` those are, by path."""
    arrays = {}
    for path, array in columns.items():
        shape, outputs = leaves[path].shape, axes[path]
        inputs = [axis for axis in range(len(shape)) if axis not in outputs]
        order = [*inputs, *outputs]
        moved = array.reshape([shape[axis] for axis in order])
        arrays[path] = np.asarray(moved.transpose(np.argsort(order)), order="C")
    return arrays


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
        return functools.partial(share, value)
    if name == "budget_bytes":
        return functools.partial(fitting, value)
    return functools.partial(whole, name, value, least)


def counts(
    budget: Budget,
    columns: Mapping[str, np.ndarray],
    leaves: Mapping[str, np.ndarray],
    axes: Mapping[str, Sequence[int]],
) -> list[int]:
    """How many `budget` takes of each column, by leaf; 0 of a leaf without neurons."""
    return [
        budget(len(array), where(path, leaves[path])) if axes[path] else 0
        for path, array in columns.items()
    ]


def share(fraction: float, size: int, where: str = "") -> int:
    """`fraction` of `size` elements, half rounded up; at least 1 unless it is 0.

    >>> share(0.25, 10), share(0.001, 10), share(0.0, 10)
    (3, 1, 0)

    Raises:
      ValueError: `fraction` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} is outside [0, 1]{where}")
    return min(size, max(int(fraction * size + 0.5), int(fraction > 0)))


def fitting(budget_bytes: int, size: int, where: str = "") -> int:
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
    room = whole("budget_bytes", budget_bytes, ELEMENT_BYTES, float("inf"), where)
    return min(size, room // ELEMENT_BYTES)


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


def unset(shapes: Iterable[tuple[int, ...]]) -> list[np.ndarray]:
    """Boolean arrays of `shapes`, parts of one array, that hold anything yet."""
    shapes = list(shapes)
    ends = np.cumsum([math.prod(shape) for shape in shapes], dtype=int)
    whole = np.empty(ends[-1] if shapes else 0, bool)
    parts = np.split(whole, ends[:-1])
    return [part.reshape(s) for part, s in zip(parts, shapes, strict=False)]


def each(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> list[Any]:
    """`function(*piece)` of every piece, in order; `piece[0]` is what it reads.

    By as many threads as there are cores, where there is much to read.
    """
    workers = os.cpu_count() or 1
    if workers == 1 or sum(piece[0].size for piece in pieces) < MANY:
        return list(itertools.starmap(function, pieces))

    def work(group: Sequence[tuple[Any, ...]]) -> list[Any]:
        return list(itertools.starmap(function, group))

    size = -(-len(pieces) // (4 * workers))  # a task for each would cost more
    groups = [pieces[i : i + size] for i in range(0, len(pieces), size)]
    with futures.ThreadPoolExecutor(workers) as pool:
        return list(itertools.chain.from_iterable(pool.map(work, groups)))


def check_numbers(values: np.ndarray) -> None:
    """Raises FloatingPointError if there is NaN among `values`."""
    if values.size and np.isnan(values.max()):
        raise FloatingPointError("an element is NaN")
