"""The course of a trial: what is trained, on which batches, from which values.

Everything below the earliest block that changes is read from the trunk. The blocks
from there on are composed of compiled pieces, see `pieces`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD
from subtune_jax.data import augment, dataset
from subtune_jax.data import batches as data
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import activation_cache, block_programs
from subtune_jax.subtuning.activation_cache import Trunk
from subtune_jax.subtuning.block_programs import Leaves, Own
from subtune_jax.subtuning.folds import Fold
from subtune_jax.training.setup import Setup


class Candidate(NamedTuple):
    """Where the base may change in a trial; the head is trained with any.

    Attributes:
      trained: paths of leaves, sorted.
      fresh: blocks that start from random values instead of the base's.
    """

    trained: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


class State(NamedTuple):
    """A trial under way.

    Attributes:
      step: steps done.
      values: block -> float32 masters of its trained leaves, by path in the block.
      moments: block -> state of the optimiser.
      stats: block -> running statistics, of the blocks that update theirs.
    """

    step: int
    values: dict[str, Leaves]
    moments: dict[str, Any]
    stats: dict[str, Any]


class Course(NamedTuple):
    """How candidates are trained.

    Attributes:
      made: the setup: task, network, base.
      trunk: the base's activations, and the compiled pieces.
      optimizer: followed for `train_steps` steps.
      train_steps: of a whole trial.
      heads: fold number -> the head that its trials start from; filled as needed.
    """

    made: Setup
    trunk: Trunk
    optimizer: Optimizer
    train_steps: int
    heads: dict[int, Leaves]


def entry(course: Course, one: Candidate) -> str:
    """The earliest block that differs from the base, or will."""
    moving = {path.split("/")[0] for path in one.trained} | {*one.fresh, HEAD}
    return next(block for block in course.made.backbone.blocks if block in moving)


def batches(course: Course, one: Candidate, fold: Fold, first: int, last: int) -> Any:
    """(x, targets, weight) of each step; `x` enters the first trained block."""
    parts, mine = course.trunk.pieces, network(course, one, fold)
    learns = {path.split("/")[0] for path in one.trained} | {HEAD}
    order, start = course.made.backbone.blocks, entry(course, one)
    first_trained = next(block for block in order if block in learns)
    for x, targets, weight in _entering(course, one, fold, first, last):
        yield (
            activation_cache.run(parts, mine, x, start, first_trained),
            targets,
            weight,
        )


def _entering(course: Course, one: Candidate, fold: Fold, first: int, last: int) -> Any:
    """The same, but `x` enters the earliest block that differs from the base."""
    parts, rows = course.trunk.pieces, course.trunk.rows
    classes, labels = len(course.made.task.classes), course.trunk.images.labels
    start, chosen = entry(course, one), course.made.augment
    if augment.active(chosen):
        yield from _augmented(course, one, fold, first, last)
        return
    weight = (np.arange(rows.padded) < rows.batch_size).astype(np.float32)
    for step in range(first, last):
        begin = step * rows.batch_size
        end = begin + rows.batch_size
        places = data.shuffled(fold.seed, len(fold.train), begin, end)
        where = fold.train[places]
        padded = np.concatenate([where, np.zeros(rows.padded - len(where), int)])
        x = activation_cache.read(course.trunk, start, where)
        targets = np.asarray(dataset.target(labels[padded], classes))
        yield (
            x,
            block_programs.spread(parts, targets),
            block_programs.spread(parts, weight),
        )


def _augmented(
    course: Course, one: Candidate, fold: Fold, first: int, last: int
) -> Any:
    """`_entering` of augmented images: nothing can be read from the trunk."""
    parts, images = course.trunk.pieces, course.trunk.images
    classes, chosen = len(course.made.task.classes), course.made.augment

    def read(where: np.ndarray) -> np.ndarray:
        return images.read(fold.train[where])

    own = dataset.Examples(images.labels[fold.train], None, read)

    def augmented(piece: Any) -> tuple[jax.Array, jax.Array]:
        return dataset.labelled({}, piece, classes, chosen)

    feed = data.training(own, course.trunk.rows, fold.seed, chosen)
    base, order = course.trunk.base, course.made.backbone.blocks
    for piece in feed.pieces(first, last):
        placed = {
            name: block_programs.spread(parts, rows) for name, rows in piece.items()
        }
        x, targets = block_programs.call(parts, ("augmented",), augmented, placed)
        x = block_programs.enter(parts, x)
        x = activation_cache.run(parts, base, x, order[0], entry(course, one))
        yield x, targets, placed["weight"]


def network(course: Course, one: Candidate, fold: Fold) -> dict[str, Own]:
    """Every block as it starts: the base's, or random."""
    mine = dict(course.trunk.base)
    if one.fresh:
        params, stats = _random(course, fold)
        for block in one.fresh:
            mine[block] = block_programs.own(course.trunk.pieces, params, stats, block)
    return mine


def start_params(course: Course, one: Candidate, fold: Fold) -> dict[str, Any]:
    """All parameters by path, as they are before training: the base's, or random."""
    flat = trees.flatten(course.made.variables.params)
    if one.fresh:
        fresh = trees.flatten(_random(course, fold).params)
        flat |= {p: x for p, x in fresh.items() if p.split("/")[0] in one.fresh}
    return flat


def _random(course: Course, fold: Fold) -> Any:
    # Another stream than that of random bases and heads of the same seed.
    key = jax.random.fold_in(jax.random.key(fold.seed), 1)
    classes = len(course.made.task.classes)
    return course.made.backbone.init(key, classes)
