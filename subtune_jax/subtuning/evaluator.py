"""Values of sets: trials whose results are on record, and what they cost.

A set is a tuple of blocks, or of arrays. Its value is the mean over all folds. What the
journal knows is not trained again.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from subtune_jax.subtuning import halving, journal, trials
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trial_state import Candidate
from subtune_jax.subtuning.trials import Trials

FINAL = "final "  # how the keys of final trainings begin
Set = tuple[str, ...]
Record = Mapping[str, Any]


class Valued(NamedTuple):
    """Trials with a memory.

    Attributes:
      trials: that are run.
      journal: of what has been run.
      halving: factor of successive halving, 0 for none.
      least_steps: of its first round.
      candidate: set -> what is trained.
      say: called with a line for each finished trial of a set.
    """

    trials: Trials
    journal: Journal
    halving: int
    least_steps: int
    candidate: Callable[[Set], Candidate]
    say: Callable[[str], None] = lambda line: None


def values(valued: Valued, sets: Sequence[Set]) -> dict[Set, float]:
    """The value of each set that was trained to the end; with halving, not of all.

    Sets are dropped by their loss: after few steps it usually tells them apart better
    than the metric, which is a count of examples.
    """
    last = valued.trials.course.train_steps

    def value(one: Set, until: int) -> float:
        return worth(records(valued, one, until), last)

    factor, least = valued.halving, valued.least_steps
    reached = halving.best(sets, value, last, factor, min(least, last))
    return {one: each.value for one, each in reached.items() if each.steps == last}


def records(valued: Valued, one: Set, until: int) -> list[Record]:
    """One record a fold of the set after `until` steps, trained now where it must."""
    chosen, found = valued.candidate(one), []
    for fold in valued.trials.folds:
        key = _key(chosen, fold.number, until)
        if "loss" not in valued.journal.records.get(key, {}):  # none in older ones
            result = trials.value(valued.trials, chosen, fold.number, until)
            journal.write(valued.journal, key, result._asdict())
            valued.say(f"{_name(one)}: {result.value:.4f} after {until} steps")
        found.append(valued.journal.records[key])
    return found


def worth(found: Sequence[Record], last: int) -> float:
    """What a set is compared by: the metric at step `last`, before it minus the loss.

    Args:
      found: one record a fold, all of the same step.
      last: step of a whole trial.
    """
    if found[0]["steps"] < last:
        return -statistics.fmean(each["loss"] for each in found)
    return statistics.fmean(each["value"] for each in found)


def row(valued: Valued, one: Set) -> dict[str, Any]:
    """What is on record of a set, at the latest step that all of its folds reached.

    Keys: `blocks`, `values` (one a fold), `mean`, `std` (of the sample; 0 for one
    value), `loss` (mean), `steps`, `trainable` elements of the base, `step_flops`
    (mean) and `seconds` in all.
    """
    chosen, known = valued.candidate(one), valued.journal.records
    found: dict[int, list[Record]] = {}
    reached = {json.loads(key)[-1] for key in known if key.startswith("[")}
    for until in sorted(reached):
        keys = [_key(chosen, fold.number, until) for fold in valued.trials.folds]
        if all("loss" in known.get(key, {}) for key in keys):
            found[until] = [known[key] for key in keys]
    last = max(found)
    return {
        "blocks": list(one),
        **summary([each["value"] for each in found[last]]),
        "loss": statistics.fmean(each["loss"] for each in found[last]),
        "steps": last,
        "trainable": trials.trainable(valued.trials, chosen),
        "step_flops": statistics.fmean(each["step_flops"] for each in found[last]),
        "seconds": sum(each["seconds"] for one in found.values() for each in one),
    }


def cost(journal: Journal) -> dict[str, float]:
    """The ledger of all trials: `trainings` begun, `train_steps`, `flops`, `seconds`.

    Other records of the same journal, such as final trainings, have their own figures.
    """
    found = [x for key, x in journal.records.items() if key.startswith("[")]
    return {
        "trainings": sum(each["steps"] == each["trained"] for each in found),
        "train_steps": sum(each["trained"] for each in found),
        "flops": sum(each["flops"] for each in found),
        "seconds": sum(each["seconds"] for each in found),
    }


def summary(numbers: Sequence[float]) -> dict[str, Any]:
    """`values`, their `mean` and `std`, that of the sample; 0 for one value.

    >>> summary([0.5, 1.0])["mean"]
    0.75
    """
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return {"values": list(numbers), "mean": statistics.fmean(numbers), "std": spread}


def _key(one: Candidate, fold: int, until: int) -> str:
    return json.dumps([list(one.trained), list(one.fresh), fold, until])


def _name(one: Set) -> str:
    return " + ".join(one) or "head"
