"""Final trainings: on all training data, repeated, and the test split read once.

What the search selected stands beside what it must be compared with, all trained by
the same steps on the training and validation examples together, each at the learning
rate that the validation split chose for it.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core.contracts import HEAD
from subtune_jax.core.method import Selection
from subtune_jax.data import dataset
from subtune_jax.optim import optimizer, partition
from subtune_jax.selection import masks
from subtune_jax.subtuning import (
    activation_cache,
    block_trainer,
    evaluator,
    journal,
    trials,
)
from subtune_jax.subtuning.activation_cache import Trunk
from subtune_jax.subtuning.baselines import BaselineOptions, Final
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trial_state import Candidate
from subtune_jax.subtuning.trials import Trials
from subtune_jax.training import assembly, loop, setup
from subtune_jax.training.settings import Settings


def run(
    tried: Trials,
    record: Journal,
    wanted: Sequence[Final],
    options: BaselineOptions,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """A row of the test metric for each of `wanted`; see `search.json`.

    All trainings come first; then the test split is read, for all of them together.
    """
    pool = np.arange(len(tried.course.trunk.images.labels))
    begin, first = tried.made.settings["seed"], len(tried.folds)
    seeds = range(begin, begin + options.repeats)
    folds = [Fold(first + n, seed, pool, pool[:0]) for n, seed in enumerate(seeds)]
    chosen = {rate: _optimizer(tried, rate) for rate in options.rates}
    trained: dict[str, _Trained] = {}
    rates: dict[str, float] = {}
    for one in wanted:
        rates[one.name] = _best_rate(tried, record, one, chosen)
        for fold in folds:
            key = _key(one, fold, rates[one.name])
            if key not in record.records:
                trained[key] = _train(tried, one, fold, rates[one.name], chosen)
                say(f"{one.name}: trained on all, seed {fold.seed}")
    if trained:
        _evaluate(tried, record, trained, folder)
    return [_row(tried, record, one, folds, rates[one.name]) for one in wanted]


class _Trained(NamedTuple):
    """A network that waits to be tested, and what its training took.

    Attributes:
      logits: (trunk, places among its examples) -> logits.
    """

    logits: Callable[[Trunk, np.ndarray], np.ndarray]
    steps: int
    flops: float
    seconds: float


def _optimizer(tried: Trials, rate: float, rgn_steps: int = 0) -> optimizer.Optimizer:
    """The setup's optimiser at `rate` times its learning rate."""
    given: Settings = tried.made.settings["optimizer"]
    changed: Settings = {**given, "rgn_steps": rgn_steps}
    changed["learning_rate"] = rate * given["learning_rate"]
    return optimizer.make(**changed)


def _best_rate(
    tried: Trials,
    record: Journal,
    one: Final,
    chosen: Mapping[float, optimizer.Optimizer],
) -> float:
    """The factor whose training on the first fold has the best held-out metric."""
    if len(chosen) == 1:
        return next(iter(chosen))
    fold, made = tried.folds[0], tried.made
    labels = tried.course.trunk.images.labels[fold.held]
    found = {}
    for rate in chosen:
        key = _key(one, fold, rate)
        if key not in record.records:
            done = _train(tried, one, fold, rate, chosen)
            logits = done.logits(tried.course.trunk, fold.held)
            journal.write(record, key, _told(done, made.task.metric(logits, labels)))
        found[rate] = record.records[key]["value"]
    return max(found, key=lambda rate: found[rate])


def _train(
    tried: Trials, one: Final, fold: Fold, rate: float, chosen: Mapping[float, Any]
) -> _Trained:
    if one.relative:
        return _train_relative(tried, one, fold, rate)
    begin, before = time.perf_counter(), trials.spent(tried)
    course = tried.course._replace(optimizer=chosen[rate])
    if not one.probed:
        plain = tried.made.optimizer._replace(probe_steps=0)
        made = tried.made._replace(optimizer=plain)
        course = course._replace(made=made, heads={})
    state, last = None, one.stages[-1]
    for stage in one.stages:
        state = block_trainer.begin(course, stage, fold, state)
        state = block_trainer.advance(course, stage, fold, state, course.train_steps)
    if state is None:
        raise ValueError(f"final row {one.name!r} has no stages; it needs one")
    flops, seconds = trials.spent(tried) - before, time.perf_counter() - begin
    ended = state._replace(moments={})  # as large as all that is trained, twice

    def logits(below: Trunk, where: np.ndarray) -> np.ndarray:
        there = course._replace(trunk=below)
        return block_trainer.logits(there, last, fold, ended, where)

    return _Trained(logits, course.train_steps * len(one.stages), flops, seconds)


def _train_relative(tried: Trials, one: Final, fold: Fold, rate: float) -> _Trained:
    """By the steps of `train`: a rule that looks at all arrays has no pieces."""
    begin, course, made = time.perf_counter(), tried.course, tried.made
    size, count = made.settings["batch_size"], len(fold.train)
    chosen = _optimizer(tried, rate, rgn_steps=max(1, count // size))
    head = block_trainer.begin(course, Candidate(), fold).values[HEAD]
    values = {f"{HEAD}/{path}": np.asarray(leaf) for path, leaf in head.items()}
    own = made._replace(
        train=_part(course.trunk.images, fold.train),
        settings={**made.settings, "seed": fold.seed},
    )
    chosen_mask = masks.fill(
        made.variables.params, dict.fromkeys(one.stages[0].trained, np.True_)
    )
    plan = partition.make(made.variables, made.backbone.blocks, Selection(chosen_mask))
    ready = assembly.assemble(own, plan, chosen, course.train_steps, values=values)
    steps = course.train_steps
    state, _ = loop.fit(ready.trainer, ready.state, 0, steps, lambda done, m: None)

    def logits(below: Trunk, where: np.ndarray) -> np.ndarray:
        return assembly.logits(ready, state, _part(below.images, where))

    seconds = time.perf_counter() - begin
    return _Trained(logits, steps, ready.trainer.flops * steps, seconds)


def _part(images: dataset.Examples, where: np.ndarray) -> dataset.Examples:
    """The examples `where`, in memory."""
    return dataset.resident(images.read(where), images.labels[where])


def _evaluate(
    tried: Trials, record: Journal, trained: Mapping[str, _Trained], folder: Path
) -> None:
    """Reads the test split and writes the metric of every network."""
    made, old = tried.made, tried.course.trunk
    test = setup.examples(made.backbone, made.task.test)
    below = activation_cache.make(
        old.pieces, old.base, test, old.rows, old.bounds, folder
    )
    everything = np.arange(len(test.labels))
    for key, done in trained.items():
        logits = done.logits(below, everything)
        journal.write(record, key, _told(done, made.task.metric(logits, test.labels)))


def _told(done: _Trained, value: float) -> dict[str, Any]:
    steps = {"steps": done.steps, "trained": done.steps}
    return {
        "value": float(value),
        **steps,
        "flops": done.flops,
        "seconds": done.seconds,
    }


def _row(
    tried: Trials, record: Journal, one: Final, folds: Sequence[Fold], rate: float
) -> dict[str, Any]:
    """Name, blocks, metrics on test, and what one training took on average."""
    found = [record.records[_key(one, fold, rate)] for fold in folds]
    moved = {path for stage in one.stages for path in stage.trained}
    owners = {path.split("/")[0] for path in moved}
    settings = tried.made.settings["optimizer"]
    return {
        "name": one.name,
        "blocks": [b for b in tried.made.backbone.blocks if b in owners],
        **evaluator.summary([each["value"] for each in found]),
        "trainable": trials.trainable(tried, Candidate(tuple(moved))),
        "learning_rate": rate * settings["learning_rate"],
        "train_steps": found[0]["steps"],
        "flops": statistics.fmean(each["flops"] for each in found),
        "seconds": statistics.fmean(each["seconds"] for each in found),
    }


def _key(one: Final, fold: Fold, rate: float) -> str:
    stages = json.dumps([stage.trained for stage in one.stages])
    how = f"{one.probed} {one.relative}"
    return f"{evaluator.FINAL}{fold.number} {fold.seed} {rate} {how}: {stages}"
