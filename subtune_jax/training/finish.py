"""The end of a run: the test split is read, and everything is written."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax import delta, report
from subtune_jax.core import devices, progress
from subtune_jax.core.contracts import Variables
from subtune_jax.data.dataset import Examples
from subtune_jax.training import assembly, drift, metrics_log, results, setup, workdir
from subtune_jax.training.assembly import Run
from subtune_jax.training.loop import NonFiniteLossError
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State


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
    after = results.tuned(made, ready, state)
    meta = {key: made.settings[key] for key in ("task", "backbone", "method", "seed")}
    meta |= {"classes": list(made.task.classes)}
    base = {"params": made.base.params, "stats": made.base.stats}
    delta.save(
        folder / "delta", base, {"params": after.params, "stats": after.stats}, meta
    )
    test = setup.examples(made.backbone, made.task.test)
    logits = assembly.logits(ready, state, test)
    metrics = _metrics(made, ready, state, after, logits, test, validation)
    result = _result(made, ready, state, after, metrics, seconds, folder)
    if probe is not None:
        score = metric(made, assembly.logits(probe.run, probe.state, test), test)
        result["linear_probe"] = {"validation": probe.validation, "test": score}
        progress.say(f"linear probe: test {made.task.metric_name} {score:.4f}")
    progress.say(f"fine-tuned:   test {made.task.metric_name} {metrics['test']:.4f}")
    if made.settings["keep_delta"] is False and jax.process_index() == 0:
        shutil.rmtree(folder / "delta")
    if pictures and jax.process_index() == 0:
        shown = made, logits, test.labels, test
        report.write(
            folder,
            result,
            metrics_log.read(folder),
            results.shares(made, ready),
            results.confusion(logits, test.labels, len(made.task.classes)),
            made.task.classes,
            [] if made.task.dense else results.mistakes(*shown),
            results.worst(*shown) if made.task.dense else (),
        )
    return workdir.write_json(folder / "result.json", result)


def _metrics(
    made: Setup, ready: Run, state: State, after: Variables,
    logits: np.ndarray, test: Examples, validation: float | None,
) -> dict[str, Any]:  # fmt: skip
    """`logits` are of the `test` split."""
    seen = made.validation
    if validation is None:
        validation = metric(made, assembly.logits(ready, state, seen), seen)
    found: dict[str, Any] = {
        "name": made.task.metric_name,
        "validation": validation,
        "test": metric(made, logits, test),
    }
    if not made.task.dense:
        constant = results.constant(made, len(test.labels))
        found["constant"] = metric(made, constant, test)
    if made.task.also:
        found["also"] = results.also(made, logits, test.labels)
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
        "trainable": ready.plan.counts | results.moved(state),
        "metrics": metrics,
        "cost": {
            "train_steps": settings["train_steps"],
            "selection_seconds": seconds["selection"],
            "train_seconds": seconds["train"],
            "data_wait_seconds": seconds["wait"],
            "step_flops": ready.trainer.flops,
            "optimizer_bytes": results.state_bytes(state),
            "delta_bytes": results.folder_bytes(folder / "delta"),
        },
        "frozen_unchanged": results.frozen_unchanged(made, ready, state, after),
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
        "config": settings,
        "versions": results.versions(),
    }
