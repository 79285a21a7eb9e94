"""Trials: how good is it to train these blocks? Short trainings that share their work.

A candidate is a set of leaves of the base; the head is trained with any. Each fold is
a seed, examples to train on and others to be valued on; test examples are never here.
With the same settings a trial is the training that `train` does, to float noise: the
same batches, head, optimiser and schedule; on several devices dropout draws others.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD
from subtune_jax.core.process import say
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.subtuning import folds, trainer
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.trainer import Trainer
from subtune_jax.training import activation_cache, block_step, program
from subtune_jax.training.run import fit
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

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
      trainer: what their trainings share.
      sizes: path -> elements, of the leaves of the base.
      folds: what each candidate is trained and valued on.
      states: of trials that were stopped on the way: (candidate, fold) -> state.
    """

    setup: Setup
    trainer: Trainer
    sizes: dict[str, int]
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


def prepare(setup: Setup, options: TrialOptions, parent: Path | None = None) -> Testbed:
    """Trials on the examples of `setup`; large activations go below `parent`.

    Raises:
      ValueError: there are fewer examples than folds or a batch.
    """
    first, size = setup.settings["seed"], setup.settings["batch_size"]
    seeds = list(range(first, first + options.seeds))
    strata = _strata(setup.train.labels), _strata(setup.validation.labels)
    cut = folds.cut(*strata, options.folds, seeds)
    smallest = min(len(fold.train) for fold in cut)
    if size > smallest:
        raise ValueError(f"batch_size={size}; a fold has {smallest} training examples")
    if parent is not None and jax.process_index() == 0:
        activation_cache.clear(parent)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("trials")  # none has a folder there yet
    bounds = int(options.memory_gib * GIB), int(options.disk_gib * GIB)
    pool = examples(setup)
    trunk = block_step.share(setup, bounds, parent)
    params = trees.flatten(setup.variables.params)
    sizes = {p: x.size for p, x in params.items() if not p.startswith(f"{HEAD}/")}
    if setup.backbone.drops:
        say(
            f"backbone {setup.backbone.name} drops units: what lies below a candidate "
            "is computed in every step"
        )
    return Testbed(setup, Trainer(setup, trunk, pool, {}, {}), sizes, cut, {})


def examples(setup: Setup) -> Examples:
    """The training examples, then those of validation, as trials read them."""
    return dataset.cut(dataset.join(setup.train, setup.validation))


def _strata(labels: np.ndarray) -> np.ndarray:
    """What folds have equal shares of: labels; masks are drawn by chance."""
    return labels if labels.ndim == 1 else np.zeros(len(labels), np.int32)


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
    fold, setup = testbed.folds[number], testbed.setup
    begin, before = time.perf_counter(), spent(testbed)
    own, built = trainer.training(testbed.trainer, candidate, fold)
    state, first = testbed.states.pop((candidate, number), None), 0
    if state is not None:
        first = int(state.step)
    untrained = spent(testbed)
    state = fit(built, until, first=first, state=state, finite=False).state
    step_flops = (spent(testbed) - untrained) / max(until - first, 1)
    if until < setup.settings["train_steps"]:
        testbed.states[candidate, number] = state
    guesses = program.logits(built, state, own.validation)
    labels, task = own.validation.labels, setup.task
    metric = float(task.metric(guesses, labels))
    loss = held_loss(setup, guesses, labels)
    flops, seconds = spent(testbed) - before, time.perf_counter() - begin
    return Value(metric, loss, until, until - first, step_flops, flops, seconds)


def held_loss(setup: Setup, logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean loss of examples, a batch at a time: masks are large."""
    size, classes, losses = setup.settings["batch_size"], len(setup.task.classes), []
    for first in range(0, len(labels), size):
        targets = dataset.target(labels[first : first + size], classes)
        loss = setup.task.loss(logits[first : first + size], targets)
        losses.append(np.asarray(loss, np.float64))
    return float(np.concatenate(losses).mean())


def spent(testbed: Testbed) -> float:
    """Floating-point operations so far, as XLA counts those of its programs."""
    return testbed.trainer.trunk.store.spent["flops"]


def trainable(testbed: Testbed, candidate: Candidate) -> int:
    """How many elements of the base a candidate trains."""
    return sum(testbed.sizes[path] for path in candidate.trained)
