"""Final trainings: on all training data, repeated, and the test split read once.

What the search selected is trained again with the baselines it must be compared with,
all by the same steps on the training and validation examples together, each at the
learning rate that the validation split prefers for it.
"""

import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import optimizer
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import evaluator, journal, trainer, trials
from subtune_jax.subtuning.baselines import Baseline, BaselineOptions
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trials import Testbed
from subtune_jax.training import activation_cache
from subtune_jax.training.run import fit
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import examples


def run(
    testbed: Testbed,
    record: Journal,
    baselines: Sequence[Baseline],
    options: BaselineOptions,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """A row of the test metric for each of `baselines`; see `search.json`.

    All trainings come first; then the test split is read, for all of them together.
    """
    pool = np.arange(len(testbed.trainer.pool.labels))
    first_seed, first = testbed.setup.settings["seed"], len(testbed.folds)
    seeds = range(first_seed, first_seed + options.repeats)
    folds = [Fold(first + n, seed, pool, pool[:0]) for n, seed in enumerate(seeds)]
    optimizers = {rate: _optimizer(testbed, rate) for rate in options.rates}
    trained: dict[str, _Trained] = {}
    rates: dict[str, float] = {}
    for baseline in baselines:
        rate = _best_rate(testbed, record, baseline, optimizers)
        rates[baseline.name] = rate
        for fold in folds:
            key = _key(baseline, fold, rate)
            if key not in record.records:
                trained[key] = _train(testbed, baseline, fold, rate, optimizers)
                say(f"{baseline.name}: trained on all, seed {fold.seed}")
    if trained:
        _test(testbed, record, trained)
    return [_row(testbed, record, b, folds, rates[b.name]) for b in baselines]


class _Trained(NamedTuple):
    """A network that waits to be tested, and what its training took.

    Attributes:
      logits: examples -> logits.
    """

    logits: Callable[[Examples], np.ndarray]
    steps: int
    flops: float
    seconds: float

    def record(self, value: float) -> dict[str, Any]:
        """For the journal, with the metric."""
        return {
            "value": float(value),
            "steps": self.steps,
            "trained": self.steps,
            "flops": self.flops,
            "seconds": self.seconds,
        }


def _optimizer(testbed: Testbed, rate: float, rgn_steps: int = 0) -> Optimizer:
    """The setup's optimiser at `rate` times its learning rate."""
    settings: Settings = {**testbed.setup.settings["optimizer"], "rgn_steps": rgn_steps}
    settings["learning_rate"] *= rate
    return optimizer.make(**settings)


def _best_rate(
    testbed: Testbed,
    record: Journal,
    baseline: Baseline,
    optimizers: Mapping[float, Optimizer],
) -> float:
    """The factor whose training on the first fold has the best held-out metric.

    One that makes it diverge has none.
    """
    if len(optimizers) == 1:
        return next(iter(optimizers))
    fold, values = testbed.folds[0], {}
    held = dataset.part(testbed.trainer.pool, fold.held)
    for rate in optimizers:
        key = _key(baseline, fold, rate)
        if key not in record.records:
            trained = _train(testbed, baseline, fold, rate, optimizers)
            logits, value = trained.logits(held), -math.inf
            if np.isfinite(logits).all():
                value = testbed.setup.task.metric(logits, held.labels)
            journal.write(record, key, trained.record(value))
        values[rate] = record.records[key]["value"]
    return max(values, key=lambda rate: values[rate])


def _train(
    testbed: Testbed,
    baseline: Baseline,
    fold: Fold,
    rate: float,
    optimizers: Mapping[float, Optimizer],
) -> _Trained:
    begin, before = time.perf_counter(), trials.spent(testbed)
    updates, steps = optimizers[rate], testbed.setup.settings["train_steps"]
    if baseline.relative:  # the factors of arrays are set once an epoch
        epoch_steps = len(fold.train) // testbed.setup.settings["batch_size"]
        updates = _optimizer(testbed, rate, rgn_steps=max(1, epoch_steps))
    earlier, built, state = None, None, None
    for stage in baseline.stages:
        _, built = trainer.training(
            testbed.trainer, stage, fold, updates,
            probed=baseline.probed, earlier=earlier,
        )  # fmt: skip
        state = fit(built, steps, finite=False).state._replace(opt_state=())
        earlier = built.partition.training, state
    if built is None or state is None:
        raise ValueError(f"baseline {baseline.name!r} has no stages; it needs one")
    flops, seconds = trials.spent(testbed) - before, time.perf_counter() - begin
    # Neither moments nor examples wait with the network.
    fixed = built.fixed._replace(resident={})
    logits = functools.partial(built.outputs, state, fixed)
    return _Trained(logits, steps * len(baseline.stages), flops, seconds)


def _test(testbed: Testbed, record: Journal, trained: Mapping[str, _Trained]) -> None:
    """Reads the test split and writes the metric of every network."""
    task = testbed.setup.task
    test = dataset.cut(examples(testbed.setup.backbone, task.test))
    activation_cache.forget(testbed.trainer.trunk.cache)  # test may have its room
    for key, network in trained.items():
        value = task.metric(network.logits(test), test.labels)
        journal.write(record, key, network.record(value))


def _row(
    testbed: Testbed,
    record: Journal,
    baseline: Baseline,
    folds: Sequence[Fold],
    rate: float,
) -> dict[str, Any]:
    """Name, blocks, metrics on test, and what one training took on average."""
    of_folds = [record.records[_key(baseline, fold, rate)] for fold in folds]
    moved = {path for stage in baseline.stages for path in stage.trained}
    owners = {path.split("/")[0] for path in moved}
    settings = testbed.setup.settings["optimizer"]
    return {
        "name": baseline.name,
        "blocks": [b for b in testbed.setup.backbone.blocks if b in owners],
        **evaluator.summary([each["value"] for each in of_folds]),
        "trainable": trials.trainable(testbed, Candidate(tuple(moved))),
        "learning_rate": rate * settings["learning_rate"],
        "train_steps": of_folds[0]["steps"],
        "flops": statistics.fmean(each["flops"] for each in of_folds),
        "seconds": statistics.fmean(each["seconds"] for each in of_folds),
    }


def _key(baseline: Baseline, fold: Fold, rate: float) -> str:
    stages = json.dumps([stage.trained for stage in baseline.stages])
    how = f"{baseline.probed} {baseline.relative}"
    return f"{evaluator.FINAL}{fold.number} {fold.seed} {rate} {how}: {stages}"
