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
from subtune_jax.core.contracts import HEAD
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.subtuning import activation_cache, block_trainer, folds
from subtune_jax.subtuning.block_programs import Programs
from subtune_jax.subtuning.block_trainer import BlockTrainer, TrialState
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.training.setup import DTYPES, Setup, batch_rows

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
      memory_gib: bound on what the activation cache takes in memory, in GiB.
      disk_gib: bound on what it takes on disk beyond that.

    Raises:
      ValueError: a number is out of its range.
    """
    for name, value in (("folds", folds), ("halving", halving)):
        if value < 0 or value == 1:
            raise ValueError(f"trials.{name}={value}; it must be 0, or 2 or more")
    if seeds < 1:
        raise ValueError(f"trials.seeds={seeds}; it must be 1 or more")
    if not (memory_gib >= 0 and disk_gib >= 0):
        bounds = f"trials.memory_gib={memory_gib}, trials.disk_gib={disk_gib}"
        raise ValueError(f"{bounds}; they must be 0 or more")
    return TrialOptions(folds, seeds, halving, least_steps, memory_gib, disk_gib)


class Testbed(NamedTuple):
    """What candidates are tried on.

    Attributes:
      setup: task, network, base.
      trainer: how a trial is trained.
      sizes: path -> elements, of the leaves of the base.
      folds: what each candidate is trained and valued on.
      states: of trials that were stopped on the way: (candidate, fold) -> state.
    """

    setup: Setup
    trainer: BlockTrainer
    sizes: dict[str, int]
    folds: tuple[Fold, ...]
    states: dict[tuple[Candidate, int], TrialState]


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


def prepare(setup: Setup, options: TrialOptions, parent: Path | None = None) -> Testbed:
    """Trials on the examples of `setup`; large activations go below `parent`.

    Raises:
      ValueError: there are several processes, masks, dropout, fewer examples than folds
        or a batch, or an optimiser that trials do not follow (Auto-RGN, averaging).
    """
    _check(setup)
    first, size = setup.settings["seed"], setup.settings["batch_size"]
    seeds = list(range(first, first + options.seeds))
    labels = setup.train.labels, setup.validation.labels
    cut = folds.cut(*labels, options.folds, seeds)
    smallest = min(len(fold.train) for fold in cut)
    if size > smallest:
        raise ValueError(f"batch_size={size}; a fold has {smallest} training examples")
    backbone, dtype = setup.backbone, DTYPES[setup.settings["dtype"]]
    programs = Programs(
        backbone, setup.task.loss, dtype, setup.devices, {}, {"flops": 0.0}
    )
    base = block_trainer.on_devices(programs, *setup.variables, backbone.blocks)
    bounds = int(options.memory_gib * GIB), int(options.disk_gib * GIB)
    if parent is not None:
        activation_cache.clear(parent)
    cache = activation_cache.make(
        programs, base, examples(setup), batch_rows(setup), bounds, parent
    )
    steps = setup.settings["train_steps"]
    params = trees.flatten(setup.variables.params)
    trainer = BlockTrainer(setup, params, cache, setup.optimizer, steps, {})
    sizes = {p: x.size for p, x in params.items() if not p.startswith(f"{HEAD}/")}
    return Testbed(setup, trainer, sizes, cut, {})


def examples(setup: Setup) -> Examples:
    """The training examples, then those of validation, as trials read them."""
    return activation_cache.cut(dataset.join(setup.train, setup.validation))


def blocks(setup: Setup) -> list[str]:
    """The blocks below the head that have parameters."""
    owners = {path.split("/")[0] for path in trees.flatten(setup.base.params)}
    return [block for block in setup.backbone.blocks[:-1] if block in owners]


def candidate(
    testbed: Testbed, trained: Iterable[str], fresh: Iterable[str] = ()
) -> Candidate:
    """The candidate that trains all of some blocks, or some leaves, given by name.

    Args:
      testbed: of whose network.
      trained: blocks, or paths of leaves.
      fresh: blocks that start from random values.
    """
    names = set(trained)
    paths = [p for p in testbed.sizes if p in names or p.split("/")[0] in names]
    return Candidate(tuple(paths), tuple(sorted(fresh)))


def value(testbed: Testbed, candidate: Candidate, number: int, until: int) -> Value:
    """Trains a candidate on fold `number` up to step `until`, from where it was left.

    A trial that has not reached its last step is kept in memory for the next call.
    """
    trainer, fold, setup = testbed.trainer, testbed.folds[number], testbed.setup
    begin, before = time.perf_counter(), spent(testbed)
    state = testbed.states.pop((candidate, number), None)
    if state is None:
        state = block_trainer.begin(trainer, candidate, fold)
    trained, untrained = until - state.step, spent(testbed)
    state = block_trainer.advance(trainer, candidate, fold, state, until)
    step_flops = (spent(testbed) - untrained) / max(trained, 1)
    if until < trainer.train_steps:
        testbed.states[candidate, number] = state
    logits = block_trainer.logits(trainer, candidate, fold, state, fold.held)
    labels, task = trainer.cache.examples.labels[fold.held], setup.task
    metric = float(task.metric(logits, labels))
    targets = dataset.target(labels, len(task.classes))
    loss = float(np.asarray(task.loss(logits, targets), np.float64).mean())
    flops, seconds = spent(testbed) - before, time.perf_counter() - begin
    return Value(metric, loss, until, trained, step_flops, flops, seconds)


def spent(testbed: Testbed) -> float:
    """Floating-point operations so far, as XLA counts those of its programs."""
    return testbed.trainer.cache.programs.spent["flops"]


def trainable(testbed: Testbed, candidate: Candidate) -> int:
    """How many elements of the base a candidate trains."""
    return sum(testbed.sizes[path] for path in candidate.trained)


def _check(setup: Setup) -> None:
    """Refuses what trials do not follow."""
    task, backbone, optimizer = setup.task, setup.backbone, setup.optimizer
    if jax.process_count() > 1:
        there = f"{jax.process_count()} processes"
        raise ValueError(f"trials run in one process; there are {there}")
    if task.dense:
        what = f"trials were given task {task.name}, which has masks"
        raise ValueError(f"{what}; they need one label an image")
    if backbone.drops:  # the trunk is not the same in every step
        what = f"dropout in trials: backbone {backbone.name} drops units"
        raise ValueError(f"{what}; make it without dropout")
    if optimizer.rgn_steps or optimizer.ema:
        rules = f"rgn_steps={optimizer.rgn_steps}, ema={optimizer.ema}"
        raise ValueError(f"trials were given optimizer {rules}; both must be 0")
