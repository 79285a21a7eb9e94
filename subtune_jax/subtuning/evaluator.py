"""The evaluator: values of candidates, and what finding them has cost.

A candidate is named by a set, a tuple of blocks or of arrays. Its value is the mean
over all folds. What the journal knows is not trained again.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from subtune_jax import delta
from subtune_jax.subtuning import halving, journal, trials
from subtune_jax.subtuning.candidates import Candidate, Set
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trials import Testbed, TrialOptions
from subtune_jax.training import results
from subtune_jax.training.setup import Setup

FINAL = "final "  # how the keys of final trainings begin
Record = Mapping[str, Any]


class Evaluator(NamedTuple):
    """Trials with a memory.

    Attributes:
      testbed: of the trials.
      journal: of what has been run.
      options: of trials; those of successive halving are followed.
      candidate: set -> what is trained.
      say: called with a line for each finished trial.
    """

    testbed: Testbed
    journal: Journal
    options: TrialOptions
    candidate: Callable[[Set], Candidate]
    say: Callable[[str], None] = lambda line: None


def values(evaluator: Evaluator, sets: Sequence[Set]) -> dict[Set, float]:
    """The value of each set that was trained to the end; with halving, not of all.

    Sets are dropped by their loss: after few steps it usually tells them apart better
    than the metric, which is a count of examples.
    """
    last = evaluator.testbed.setup.settings["train_steps"]

    def value(names: Set, until: int) -> float:
        return worth(records(evaluator, names, until), last)

    factor, least = evaluator.options.halving, evaluator.options.least_steps
    if not factor:
        return {names: value(names, last) for names in sets}
    reached = halving.best(sets, value, last, factor, min(least, last))
    return {names: each.value for names, each in reached.items() if each.steps == last}


def records(evaluator: Evaluator, names: Set, until: int) -> list[Record]:
    """One record a fold of the set after `until` steps, trained now where it must."""
    candidate, of_folds = evaluator.candidate(names), []
    testbed, known = evaluator.testbed, evaluator.journal.records
    for fold in testbed.folds:
        key = _key(candidate, fold.number, until)
        if "loss" not in known.get(key, {}):  # none in older ones
            result = trials.value(testbed, candidate, fold.number, until)
            journal.write(evaluator.journal, key, result._asdict())
            name = " + ".join(names) or "head"
            evaluator.say(f"{name}: {result.value:.4f} after {until} steps")
        of_folds.append(known[key])
    return of_folds


def worth(of_folds: Sequence[Record], last: int) -> float:
    """What a set is compared by: the metric at step `last`, before it minus the loss.

    A training that diverged, whose loss is not finite, comes last.

    Args:
      of_folds: one record a fold, all of the same step.
      last: step of a whole trial.
    """
    loss = statistics.fmean(record["loss"] for record in of_folds)
    if not math.isfinite(loss):
        return -math.inf
    if of_folds[0]["steps"] < last:
        return -loss
    return statistics.fmean(record["value"] for record in of_folds)


def row(evaluator: Evaluator, names: Set) -> dict[str, Any]:
    """What is on record of a set, at the latest step that all of its folds reached.

    Keys: `blocks`, `values` (one a fold), `mean`, `std` (of the sample; 0 for one
    value), `loss` (mean), `steps`, `trainable` elements of the base, `step_flops`
    (mean) and `seconds` in all.
    """
    candidate, known = evaluator.candidate(names), evaluator.journal.records
    by_step: dict[int, list[Record]] = {}
    reached = {json.loads(key)[-1] for key in known if key.startswith("[")}
    for until in sorted(reached):
        keys = [_key(candidate, f.number, until) for f in evaluator.testbed.folds]
        if all("loss" in known.get(key, {}) for key in keys):
            by_step[until] = [known[key] for key in keys]
    last = max(by_step)
    return {
        "blocks": list(names),
        **summary([record["value"] for record in by_step[last]]),
        "loss": statistics.fmean(record["loss"] for record in by_step[last]),
        "steps": last,
        "trainable": trials.trainable(evaluator.testbed, candidate),
        "step_flops": statistics.fmean(r["step_flops"] for r in by_step[last]),
        "seconds": sum(r["seconds"] for rows in by_step.values() for r in rows),
    }


def cost(journal: Journal) -> dict[str, float]:
    """The ledger of all trials: `trainings` begun, `train_steps`, `flops`, `seconds`.

    Other records of the same journal, such as final trainings, have their own figures.
    """
    known = journal.records.items()
    of_trials = [record for key, record in known if key.startswith("[")]
    return {
        "trainings": sum(record["steps"] == record["trained"] for record in of_trials),
        "train_steps": sum(record["trained"] for record in of_trials),
        "flops": sum(record["flops"] for record in of_trials),
        "seconds": sum(record["seconds"] for record in of_trials),
    }


def summary(numbers: Sequence[float]) -> dict[str, Any]:
    """`values`, their `mean` and `std`, that of the sample; 0 for one value.

    >>> summary([0.5, 1.0])["mean"]
    0.75
    """
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return {"values": list(numbers), "mean": statistics.fmean(numbers), "std": spread}


def about(setup: Setup, section: str) -> dict[str, Any]:
    """What every result says of its run: task, network, metric, where it was taken.

    Args:
      setup: of the run.
      section: of the config, whose keys are the result's `options`.
    """
    count = setup.settings["trials"]["folds"]
    return {
        "task": setup.task.name,
        "backbone": setup.backbone.name,
        "metric": setup.task.metric_name,
        "split": f"{count} folds of train and validation" if count else "validation",
        "examples": {
            "train": len(setup.train.labels),
            "validation": len(setup.validation.labels),
        },
        "base_fingerprint": delta.fingerprint(setup.base._asdict()),
        "config": setup.settings,
        "options": setup.settings[section],
        "versions": results.versions(),
    }


def _key(candidate: Candidate, fold: int, until: int) -> str:
    return json.dumps([list(candidate.trained), list(candidate.fresh), fold, until])
