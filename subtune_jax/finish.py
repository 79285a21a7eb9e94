"""The end of a run: the test split is read, and everything is written."""

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax import (
    delta,
    devices,
    drift,
    metrics_log,
    outcome,
    report,
    runs,
    setup,
    workdir,
)
from subtune_jax.contracts import Variables
from subtune_jax.dataset import Examples
from subtune_jax.loop import NonFiniteLossError
from subtune_jax.runs import Run
from subtune_jax.setup import Setup
from subtune_jax.step import State


class Probed(NamedTuple):
    """A linear probe: its run, its last state, its metric on validation."""

    run: Run
    state: State
    validation: float


class Ready(NamedTuple):
    """A run before its first step.

    Attributes:
      made: the setup.
      run: what is trained.
      probe: of linear probing, where there was any.
      selection_seconds: that choosing took.
    """

    made: Setup
    run: Run
    probe: Probed | None
    selection_seconds: float


def say(line: str) -> None:
    """One line on stderr, by process 0."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def metric(made: Setup, logits: np.ndarray, examples: Examples) -> float:
    """The task's metric of logits `[N, C]`."""
    return float(made.task.metric(logits, examples.labels))


def refuse_not_finite(state: State, done: int) -> None:
    """Raises NonFiniteLossError unless all trained values are finite numbers."""
    values = devices.to_host(state.values).values()
    if not all(np.isfinite(value).all() for value in values):
        raise NonFiniteLossError(f"a trained value is not finite after step {done}")


def write(
    found: Ready,
    state: State,
    seconds: dict[str, float],
    folder: Path,
    *,
    pictures: bool,
    validation: float | None = None,
) -> Path:
    """Evaluates on test, once, and writes the delta, the report and the result.

    Args:
      found: the run.
      state: after the last step.
      seconds: of `train`ing, and those that it had to `wait` for data.
      folder: of the run.
      pictures: whether there is a report.
      validation: the metric of `state`, where it is known.

    Raises:
      NonFiniteLossError: a trained value is not finite.
    """
    made, ready, probe, spent = found
    seconds = {**seconds, "selection": spent}
    refuse_not_finite(state, made.settings["train_steps"])
    after = outcome.tuned(made, ready, state)
    meta = {key: made.settings[key] for key in ("task", "backbone", "method", "seed")}
    meta |= {"classes": list(made.task.classes)}
    base = {"params": made.base.params, "stats": made.base.stats}
    delta.save(
        folder / "delta", base, {"params": after.params, "stats": after.stats}, meta
    )
    test = setup.examples(made.backbone, made.task.test)
    logits = runs.logits(ready, state, test)
    metrics = _metrics(made, ready, state, after, logits, test, validation)
    result = _result(made, ready, state, after, metrics, seconds, folder)
    if probe is not None:
        score = metric(made, runs.logits(probe.run, probe.state, test), test)
        result["linear_probe"] = {"validation": probe.validation, "test": score}
        say(f"linear probe: test {made.task.metric_name} {score:.4f}")
    say(f"fine-tuned:   test {made.task.metric_name} {metrics['test']:.4f}")
    if made.settings["keep_delta"] is False and jax.process_index() == 0:
        shutil.rmtree(folder / "delta")
    if pictures and jax.process_index() == 0:
        shown = made, logits, test.labels, test
        report.write(
            folder,
            result,
            metrics_log.read(folder),
            outcome.shares(made, ready),
            outcome.confusion(logits, test.labels, len(made.task.classes)),
            made.task.classes,
            [] if made.task.dense else outcome.mistakes(*shown),
            outcome.worst(*shown) if made.task.dense else (),
        )
    return workdir.write_json(folder / "result.json", result)


def _metrics(
    made: Setup, ready: Run, state: State, after: Variables,
    logits: np.ndarray, test: Examples, validation: float | None,
) -> dict[str, Any]:  # fmt: skip
    """`logits` are of the `test` split."""
    seen = made.validation
    if validation is None:
        validation = metric(made, runs.logits(ready, state, seen), seen)
    found: dict[str, Any] = {
        "name": made.task.metric_name,
        "validation": validation,
        "test": metric(made, logits, test),
    }
    if not made.task.dense:
        constant = outcome.constant(made, len(test.labels))
        found["constant"] = metric(made, constant, test)
    if made.task.also:
        found["also"] = outcome.also(made, logits, test.labels)
    if made.settings["drift_examples"]:
        few = made.settings["drift_examples"]
        found["drift"] = drift.measure(made, after, seen, few)
    return found


def _result(
    made: Setup, ready: Run, state: State, after: Variables,
    metrics: dict[str, Any], seconds: dict[str, float], folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """The content of `result.json`; see the README for what each key means."""
    settings = made.settings
    return {
        "task": settings["task"]["name"],
        "backbone": settings["backbone"]["name"],
        "method": settings["method"]["name"],
        "seed": settings["seed"],
        "devices": made.devices.size,
        "parallel": made.devices.mode,
        "trainable": ready.plan.counts | outcome.moved(state),
        "metrics": metrics,
        "cost": {
            "train_steps": settings["train_steps"],
            "selection_seconds": seconds["selection"],
            "train_seconds": seconds["train"],
            "data_wait_seconds": seconds["wait"],
            "step_flops": ready.trainer.flops,
            "optimizer_bytes": outcome.state_bytes(state),
            "delta_bytes": outcome.folder_bytes(folder / "delta"),
        },
        "frozen_unchanged": outcome.frozen_unchanged(made, ready, state, after),
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
        "config": settings,
        "versions": outcome.versions(),
    }
