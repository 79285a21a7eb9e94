"""Trials: how good is it to train these blocks? Short trainings that share their work.

A candidate is a set of leaves of the base; the head is trained with any. Each fold is
a seed, examples to train on and others to be valued on; test examples are never here.
With the same settings a trial is the training that `train` does, to float noise: the
same batches, head, optimiser and schedule.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.subtuning import activation_cache, block_programs, block_trainer, folds
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.trial_state import Candidate, Course, State
from subtune_jax.training import setup
from subtune_jax.training.setup import Setup

GIB = 1 << 30


class TrialOptions(NamedTuple):
    """How candidates are valued; see `make`."""

    folds: int
    seeds: int
    halving: int
    least_steps: int
    memory_gib: float
    disk_gib: float


def make(
    folds: int = 0,
    seeds: int = 1,
    halving: int = 0,
    least_steps: int = 10,
    memory_gib: float = 2.0,
    disk_gib: float = 16.0,
) -> TrialOptions:
    """Options of trials.

    Args:
      folds: k of a k-fold cross-validation over training and validation examples
        together, stratified and disjoint; 0 to train on the training split and value
        on the validation split.
      seeds: how often each candidate is trained on each fold, from another head, in
        another order (and with other folds).
      halving: successive halving (arXiv:1502.07943): candidates are trained in rounds,
        and of each round the best 1 / `halving` by held-out loss go on; 0 to train each
        to its end.
      least_steps: before a candidate may be dropped by halving: below ten or so, and
        while the rate warms up, values say little.
      memory_gib: bound on what the activations of the trunk take in memory, in GiB.
      disk_gib: bound on what they take on disk beyond that.

    Raises:
      ValueError: a number is out of its range.
    """
    for name, value in (("folds", folds), ("halving", halving)):
        if value < 0 or value == 1:
            raise ValueError(f"trials {name}={value}; it must be 0, or 2 or more")
    if seeds < 1:
        raise ValueError(f"trials seeds={seeds}; it must be 1 or more")
    if not (memory_gib >= 0 and disk_gib >= 0):
        given = f"memory_gib={memory_gib}, disk_gib={disk_gib}"
        raise ValueError(f"trials {given}; they must be 0 or more")
    return TrialOptions(folds, seeds, halving, least_steps, memory_gib, disk_gib)


class Trials(NamedTuple):
    """A setup that candidates are tried on.

    Attributes:
      made: the setup.
      course: how a trial is trained: network, data, optimiser.
      folds: what each candidate is trained and valued on.
      states: of trials that were stopped on the way: (candidate, fold) -> state.
    """

    made: Setup
    course: Course
    folds: tuple[Fold, ...]
    states: dict[tuple[Candidate, int], State]


class Value(NamedTuple):
    """What a trial gave, and what it took since it was last left.

    Attributes:
      value: the metric on the held-out examples.
      loss: mean over them, lower is better.
      steps: done in all.
      trained: of these now.
      step_flops: floating-point operations of one of them.
      flops: of all that was done now, valuing included.
      seconds: likewise, compilation included.
    """

    value: float
    loss: float
    steps: int
    trained: int
    step_flops: float
    flops: float
    seconds: float


def open_trials(
    made: Setup, options: TrialOptions, parent: Path | None = None
) -> Trials:
    """Trials on the examples of `made`; large activations go below `parent`.

    Raises:
      ValueError: there are several processes, masks, dropout, fewer examples than folds
        or a batch, or an optimiser that trials do not follow (Auto-RGN, averaging).
    """
    if jax.process_count() > 1:
        given = f"{jax.process_count()} processes"
        raise ValueError(f"trials run in one process; there are {given}")
    if made.task.dense:
        what = f"trials were given task {made.task.name}, which has masks"
        raise ValueError(f"{what}; they need one label an image")
    if made.backbone.drops:  # the trunk is not the same in every step
        what = f"dropout in trials: backbone {made.backbone.name} drops units"
        raise ValueError(f"{what}; make it without dropout")
    if made.optimizer.rgn_steps or made.optimizer.ema:
        given = f"rgn_steps={made.optimizer.rgn_steps}, ema={made.optimizer.ema}"
        raise ValueError(f"trials were given optimizer {given}; both must be 0")
    first = made.settings["seed"]
    seeds = list(range(first, first + options.seeds))
    labels = made.train.labels, made.validation.labels
    cut = folds.cut(*labels, options.folds, seeds)
    size, smallest = made.settings["batch_size"], min(len(f.train) for f in cut)
    if size > smallest:
        raise ValueError(f"batch_size={size}; a fold has {smallest} training examples")
    parts = block_programs.make(
        made.backbone, made.task.loss, setup.dtype(made), made.devices
    )
    params, stats = made.variables
    base = {
        b: block_programs.own(parts, params, stats, b) for b in made.backbone.blocks
    }
    bounds = int(options.memory_gib * GIB), int(options.disk_gib * GIB)
    rows = setup.batch_rows(made)
    if parent is not None:
        activation_cache.clear(parent)
    below = activation_cache.make(parts, base, images(made), rows, bounds, parent)
    steps = made.settings["train_steps"]
    return Trials(made, Course(made, below, made.optimizer, steps, {}), cut, {})


def images(made: Setup) -> Examples:
    """The training examples, then those of validation, as trials read them."""
    return activation_cache.cut(join(made.train, made.validation))


def join(a: Examples, b: Examples) -> Examples:
    """The examples of `a`, then those of `b`."""
    count = len(a.labels)

    def read(where: np.ndarray) -> np.ndarray:
        where = np.asarray(where)
        first, found = where < count, {}
        for part, chosen, shift in ((a, first, 0), (b, ~first, count)):
            if chosen.any():
                found[id(part)] = chosen, part.read(where[chosen] - shift)
        shape = next(iter(found.values()))[1]
        out = np.empty((len(where), *shape.shape[1:]), shape.dtype)
        for chosen, rows in found.values():
            out[chosen] = rows
        return out

    lengths = None
    if a.lengths is not None and b.lengths is not None:
        lengths = np.concatenate([a.lengths, b.lengths])
    return Examples(np.concatenate([a.labels, b.labels]), None, read, lengths)


def candidate(
    trials: Trials, trained: Iterable[str], fresh: Iterable[str] = ()
) -> Candidate:
    """The candidate that trains all of some blocks, or some leaves, given by name.

    Args:
      trials: of whose network.
      trained: blocks, or paths of leaves.
      fresh: blocks that start from random values.
    """
    names = set(trained)
    flat = trees.flatten(trials.made.base.params)
    chosen = [p for p in flat if p in names or p.split("/")[0] in names]
    return Candidate(tuple(chosen), tuple(sorted(fresh)))


def value(trials: Trials, one: Candidate, number: int, until: int) -> Value:
    """Trains `one` on fold `number` up to step `until`, from where it was left.

    A trial that has not reached its last step is kept in memory for the next call.
    """
    course, fold = trials.course, trials.folds[number]
    begin, before = time.perf_counter(), spent(trials)
    state = trials.states.pop((one, number), None)
    if state is None:
        state = block_trainer.begin(course, one, fold)
    trained, ahead = until - state.step, spent(trials)
    state = block_trainer.advance(course, one, fold, state, until)
    step_flops = (spent(trials) - ahead) / max(trained, 1)
    if until < course.train_steps:
        trials.states[one, number] = state
    logits = block_trainer.logits(course, one, fold, state, fold.held)
    labels, task = course.trunk.images.labels[fold.held], trials.made.task
    metric = float(task.metric(logits, labels))
    targets = dataset.target(labels, len(task.classes))
    loss = float(np.asarray(task.loss(logits, targets), np.float64).mean())
    flops, seconds = spent(trials) - before, time.perf_counter() - begin
    return Value(metric, loss, until, trained, step_flops, flops, seconds)


def spent(trials: Trials) -> float:
    """Floating-point operations so far, as XLA counts those of its programs."""
    return trials.course.trunk.pieces.spent["flops"]


def trainable(trials: Trials, one: Candidate) -> int:
    """How many elements of the base a candidate trains."""
    flat = trees.flatten(trials.made.base.params)
    return sum(int(np.size(flat[path])) for path in one.trained)
