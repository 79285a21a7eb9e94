"""Final trainings: on all training data, repeated, and the test split read once.

What the search selected stands beside what it must be compared with, all trained by
the same steps on the training and validation examples together, each at the learning
rate that the validation split chose for it.
"""

import json
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import data, journal, optimizer, training, trials, trunk, valued
from subtune_jax.course import Candidate, Course, State
from subtune_jax.folds import Fold
from subtune_jax.journal import Journal
from subtune_jax.names import near
from subtune_jax.trials import Trials

REPEATED = r"(block|layer|hidden)\d.*"  # names of the blocks that a network repeats
ROWS = (
    "selected",
    "head",
    "full",
    "lp_ft",
    "blocks_only",
    "selected_then_full",
    "random_blocks",
    "last_blocks",
)


class Options(NamedTuple):
    """What is trained at the end; see `make`."""

    rows: tuple[str, ...]
    repeats: int
    rates: tuple[float, ...]


def make(
    rows: Sequence[str] = ("selected", "head", "full"),
    repeats: int = 3,
    rates: Sequence[float] = (1.0,),
) -> Options:
    """Options of final trainings.

    Args:
      rows: some of these. `selected`: what the search found; `head`: the linear probe;
        `full`: true full fine-tuning, stem, embeddings and final norm included, from a
        new head; `lp_ft`: the same from the linear probe's head (arXiv:2202.10054; as
        `full` where the optimiser has no probe steps); `blocks_only`: what SubTuning's
        released code calls fine-tuning, the repeated blocks alone;
        `selected_then_full`: `selected`, then `full` from there, as many steps again;
        `random_blocks`, `last_blocks`: as many blocks as were selected, one at least.
      repeats: trainings of each row, from another head and in another order; 0: none.
      rates: factors of the optimiser's learning rate that are tried for each row on
        the first fold; the best is used, the first one on a tie.

    Raises:
      ValueError: an unknown row, or a number out of its range.
    """
    for name in rows:
        if name not in ROWS:
            raise ValueError(f"no final row named {name!r}; {near(name, ROWS)}")
    if repeats < 0:
        raise ValueError(f"finals.repeats={repeats}; it must be 0 or more")
    if not rates or min(rates) <= 0:
        raise ValueError(f"finals.rates={tuple(rates)}; one or more positive factors")
    return Options(tuple(rows), repeats, tuple(rates))


class Final(NamedTuple):
    """A row: its stages, one candidate each, and the head it starts from."""

    name: str
    stages: tuple[Candidate, ...]
    probed: bool = True


def plan(
    tried: Trials, rows: Sequence[str], selected: Candidate, blocks: Sequence[str]
) -> list[Final]:
    """The rows as candidates; `blocks` are those below the head with parameters."""

    def of(names: Sequence[str]) -> Candidate:
        return trials.candidate(tried, names)

    repeated = [b for b in blocks if re.fullmatch(REPEATED, b)] or blocks
    count = max(len({path.split("/")[0] for path in selected.trained}), 1)
    some = random.Random(tried.made.settings["seed"]).sample(list(blocks), count)
    stages: dict[str, tuple[Candidate, ...]] = {
        "selected": (selected,),
        "head": (Candidate(),),
        "full": (of(blocks),),
        "lp_ft": (of(blocks),),
        "blocks_only": (of(repeated),),
        "selected_then_full": (selected, of(blocks)),
        "random_blocks": (of(some),),
        "last_blocks": (of(blocks[-count:]),),
    }
    return [Final(name, stages[name], probed=name != "full") for name in rows]


def run(
    tried: Trials,
    record: Journal,
    wanted: Sequence[Final],
    options: Options,
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
    chosen = _optimizers(tried, options.rates)
    trained: dict[str, _Trained] = {}
    rates: dict[str, float] = {}
    for one in wanted:
        rates[one.name] = _best_rate(tried, record, one, chosen)
        for fold in folds:
            key = _key(one, fold, rates[one.name])
            if key not in record.records:
                trained[key] = _train(tried, one, fold, chosen[rates[one.name]])
                say(f"{one.name}: trained on all, seed {fold.seed}")
    if trained:
        _evaluate(tried, record, trained, folder)
    return [_row(tried, record, one, folds, rates[one.name]) for one in wanted]


class _Trained(NamedTuple):
    """A network that waits to be tested: how to run it, and what training it took."""

    course: Course
    last: Candidate
    fold: Fold
    state: State
    steps: int
    flops: float
    seconds: float


def _optimizers(
    tried: Trials, rates: Sequence[float]
) -> dict[float, optimizer.Optimizer]:
    settings = tried.made.settings["optimizer"]
    peak = settings["learning_rate"]
    return {
        rate: optimizer.make(**{**settings, "learning_rate": rate * peak})
        for rate in rates
    }


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
    for rate, rule in chosen.items():
        key = _key(one, fold, rate)
        if key not in record.records:
            done = _train(tried, one, fold, rule)
            logits = training.logits(
                done.course, done.last, fold, done.state, fold.held
            )
            journal.write(record, key, _told(done, made.task.metric(logits, labels)))
        found[rate] = record.records[key]["value"]
    return max(found, key=lambda rate: found[rate])


def _train(
    tried: Trials, one: Final, fold: Fold, rule: optimizer.Optimizer
) -> _Trained:
    begin, before = time.perf_counter(), trials.spent(tried)
    course = tried.course._replace(optimizer=rule)
    if not one.probed:
        plain = tried.made.optimizer._replace(probe_steps=0)
        made = tried.made._replace(optimizer=plain)
        course = course._replace(made=made, heads={})
    state, last = None, one.stages[-1]
    for stage in one.stages:
        state = training.begin(course, stage, fold, state)
        state = training.advance(course, stage, fold, state, course.train_steps)
    if state is None:
        raise ValueError(f"final row {one.name!r} has no stages; it needs one")
    flops, seconds = trials.spent(tried) - before, time.perf_counter() - begin
    state = state._replace(moments={})  # as large as all that is trained, twice
    steps = course.train_steps * len(one.stages)
    return _Trained(course, last, fold, state, steps, flops, seconds)


def _evaluate(
    tried: Trials, record: Journal, trained: Mapping[str, _Trained], folder: Path
) -> None:
    """Reads the test split and writes the metric of every network."""
    made, old = tried.made, tried.course.trunk
    test = data.examples(made.task.test, made.backbone.input_shape[0])
    below = trunk.make(old.pieces, old.base, test, old.rows, old.bounds, folder)
    everything = np.arange(len(test.labels))
    for key, done in trained.items():
        course = done.course._replace(trunk=below)
        logits = training.logits(course, done.last, done.fold, done.state, everything)
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
        **valued.summary([each["value"] for each in found]),
        "trainable": trials.trainable(tried, Candidate(tuple(moved))),
        "learning_rate": rate * settings["learning_rate"],
        "train_steps": found[0]["steps"],
        "flops": statistics.fmean(each["flops"] for each in found),
        "seconds": statistics.fmean(each["seconds"] for each in found),
    }


def _key(one: Final, fold: Fold, rate: float) -> str:
    stages = json.dumps([stage.trained for stage in one.stages])
    return f"{valued.FINAL}{fold.number} {fold.seed} {rate} {one.probed}: {stages}"
