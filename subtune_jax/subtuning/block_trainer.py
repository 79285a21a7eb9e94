"""Training in pieces: a trial from its first state to its last, and its logits."""

from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD
from subtune_jax.data import augment
from subtune_jax.optim import optimizer
from subtune_jax.subtuning import (
    activation_cache,
    block_optimizer,
    block_programs,
    trial_state,
)
from subtune_jax.subtuning.block_programs import Leaves, Own
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.trial_state import Candidate, Course, State, entry
from subtune_jax.training import setup


def begin(
    course: Course, one: Candidate, fold: Fold, earlier: State | None = None
) -> State:
    """The first state of a trial: the base's values and the fold's head.

    With `earlier`, the values that are in it: a second stage of training.
    """
    parts, flat = course.trunk.pieces, trial_state.start_params(course, one, fold)
    if not augment.active(course.made.augment):
        activation_cache.keep(course.trunk, entry(course, one))
    head = earlier.values[HEAD] if earlier else _head(course, fold)
    values: dict[str, Leaves] = {HEAD: head}
    for path in one.trained:
        block, leaf = path.split("/", 1)
        found = None if earlier is None else earlier.values.get(block, {}).get(leaf)
        master = np.asarray(flat[path], np.float32) if found is None else found
        values.setdefault(block, {})[leaf] = block_programs.replicate(parts, master)
    return _fresh_moments(course, values, dict(earlier.stats) if earlier else {})


def advance(
    course: Course, one: Candidate, fold: Fold, state: State, until: int
) -> State:
    """The state after `until` steps in all."""
    mine = trial_state.network(course, one, fold)
    for x, targets, weight in trial_state.batches(course, one, fold, state.step, until):
        found = slopes(course, mine, state, x, targets, weight)
        state = _move(course, state, found.grads, found.stats)
    return state


class Slopes(NamedTuple):
    """The gradient of a batch.

    Attributes:
      loss: weighted mean over the batch.
      grads: block -> gradients of its trained leaves.
      stats: as in `State`, after the batch.
    """

    loss: jax.Array
    grads: dict[str, Leaves]
    stats: dict[str, Any]


def slopes(
    course: Course,
    mine: dict[str, Own],
    state: State,
    x: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
) -> Slopes:
    """The gradient at `state`, of a batch `x` that enters the first trained block."""
    parts, order = course.trunk.pieces, course.made.backbone.blocks
    first = next(block for block in order if block in state.values)
    path, backs, stats = order[order.index(first) :], [], dict(state.stats)
    for block in path:
        own, values = mine[block], state.values.get(block, {})
        own = own._replace(stats=stats.get(block, own.stats))
        learns = bool(values and own.stats) and _normalises(course)
        seen = weight if learns else None
        y, back, moved = block_programs.ahead(
            parts, block, values, own, x, through=block != first, weight=seen
        )
        x = y
        backs.append(back)
        if learns:
            stats[block] = moved
    loss, slope = block_programs.top(parts, x, targets, weight)
    grads: dict[str, Leaves] = {}
    for block, back in zip(reversed(path), reversed(backs), strict=True):
        found = back(slope)
        slope = found[-1]
        if block in state.values:
            grads[block] = found[0]
    return Slopes(loss, grads, stats)


def logits(
    course: Course, one: Candidate, fold: Fold, state: State, where: np.ndarray
) -> np.ndarray:
    """Logits `[n, C]` of the examples `where` in the network as it is in `state`."""
    parts, start = course.trunk.pieces, entry(course, one)
    mine = trial_state.network(course, one, fold)
    for block, values in state.values.items():
        cast = {path: leaf.astype(parts.dtype) for path, leaf in values.items()}
        stats = state.stats.get(block, mine[block].stats)
        mine[block] = Own({**mine[block].params, **cast}, stats)
    rows = []
    activation_cache.keep(course.trunk, start)
    for some in activation_cache.portions(course.trunk, where):
        x = activation_cache.read(course.trunk, start, some)
        rows.append(
            np.asarray(activation_cache.run(parts, mine, x, start, None))[: len(some)]
        )
    return np.concatenate(rows)


def _move(
    course: Course, state: State, grads: dict[str, Leaves], stats: dict[str, Any]
) -> State:
    parts, chosen = course.trunk.pieces, course.optimizer
    scale = block_optimizer.clip(parts, grads, chosen.clip_norm)
    values, moments = {}, {}
    for block, old in state.values.items():
        values[block], moments[block] = block_optimizer.update(
            parts,
            (chosen, course.train_steps),
            block,
            old,
            state.moments[block],
            grads[block],
            scale,
        )
    return State(state.step + 1, values, moments, stats)


def _head(course: Course, fold: Fold) -> Leaves:
    """The fold's new head; after linear probing, if the optimiser has such steps."""
    if fold.number not in course.heads:
        made = course.made
        new = setup.new_head(made.backbone, len(made.task.classes), fold.seed)
        flat = trees.flatten(new)
        course.heads[fold.number] = block_programs.replicate(course.trunk.pieces, flat)
        count = made.optimizer.probe_steps
        if count:
            rate = made.optimizer.probe_learning_rate
            probing = optimizer.make("adam", learning_rate=rate)
            plain = made._replace(augment=augment.NONE)
            short = course._replace(made=plain, optimizer=probing, train_steps=count)
            first = begin(short, Candidate(), fold)
            last = advance(short, Candidate(), fold, first, count)
            course.heads[fold.number] = last.values[HEAD]
    return course.heads[fold.number]


def _fresh_moments(
    course: Course, values: dict[str, Leaves], stats: dict[str, Any]
) -> State:
    parts, steps = course.trunk.pieces, (course.optimizer, course.train_steps)
    moments = {b: block_optimizer.begin(parts, steps, b, x) for b, x in values.items()}
    return State(0, values, moments, stats)


def _normalises(course: Course) -> bool:
    return course.made.settings["batch_norm"] == "trained"
