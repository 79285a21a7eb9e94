"""The end of a run: the test split is read once, and everything is written."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax import delta
from subtune_jax.core import devices
from subtune_jax.core.contracts import Variables
from subtune_jax.core.process import say
from subtune_jax.data.dataset import Examples
from subtune_jax.training import drift, program, tuned, workdir
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup, examples
from subtune_jax.training.step import State


class NonFiniteLossError(FloatingPointError):
    """The loss or a trained value is no longer a finite number."""


class LinearProbe(NamedTuple):
    """A head trained alone: its program, its last state, its metric on validation."""

    program: Program
    state: State
    validation: float | None = None


class Begun(NamedTuple):
    """A run before its first step.

    Attributes:
      setup: of the run.
      program: what is trained.
      probe: of linear probing, where there was any.
      selection_seconds: that choosing took.
    """

    setup: Setup
    program: Program
    probe: LinearProbe | None
    selection_seconds: float


class Fitted(NamedTuple):
    """A training that is done.

    Attributes:
      state: the last one.
      seconds: that it took.
      wait_seconds: of these, waiting for data.
      validation: the metric of `state`, None where it was not taken.
    """

    state: State
    seconds: float
    wait_seconds: float
    validation: float | None = None


def write(begun: Begun, fitted: Fitted, folder: Path, *, pictures: bool) -> Path:
    """Evaluates on test, once, and writes the delta, the report and `result.json`.

    Args:
      begun: the run.
      fitted: its training.
      folder: of the run.
      pictures: whether there is a report.

    Raises:
      NonFiniteLossError: a trained value is not finite.
    """
    setup, settings, state = begun.setup, begun.setup.settings, fitted.state
    refuse_not_finite(state, settings["train_steps"])
    shipped = tuned.variables(setup, begun.program, state)
    meta = {key: settings[key] for key in ("task", "backbone", "method", "seed")}
    meta |= {"classes": list(setup.task.classes)}
    base = setup.base._asdict()
    delta.save(folder / "delta", base, shipped._asdict(), meta)
    test = examples(setup.backbone, setup.task.test)
    logits = program.logits(begun.program, state, test)
    metrics = _metrics(begun, fitted, shipped, logits, test)
    result = _result(begun, fitted, shipped, metrics, folder)
    name = setup.task.metric_name
    if begun.probe is not None:
        probed = program.logits(begun.probe.program, begun.probe.state, test)
        score = float(setup.task.metric(probed, test.labels))
        validation = begun.probe.validation
        result["linear_probe"] = {"validation": validation, "test": score}
        say(f"linear probe: test {name} {score:.4f}")
    say(f"fine-tuned:   test {name} {metrics['test']:.4f}")
    if jax.process_index() == 0:
        if settings["keep_delta"] is False:
            shutil.rmtree(folder / "delta")
        if pictures:
            from subtune_jax.training import report_data  # matplotlib: a second

            report_data.write(folder, setup, begun.program, result, logits, test)
    return workdir.write_json(folder / "result.json", result)


def refuse_not_finite(state: State, done: int) -> None:
    """Raises NonFiniteLossError unless all trained values are finite numbers."""
    for value in devices.to_host(state.values).values():
        if not np.isfinite(value).all():
            raise NonFiniteLossError(f"a trained value is not finite after step {done}")


def _metrics(
    begun: Begun,
    fitted: Fitted,
    shipped: Variables,
    logits: np.ndarray,
    test: Examples,
) -> dict[str, Any]:
    """`logits` are of the `test` split."""
    setup, task, held = begun.setup, begun.setup.task, begun.setup.validation
    validation = fitted.validation
    if validation is None:
        guesses = program.logits(begun.program, fitted.state, held)
        validation = float(task.metric(guesses, held.labels))
    metrics: dict[str, Any] = {
        "name": task.metric_name,
        "validation": validation,
        "test": float(task.metric(logits, test.labels)),
    }
    if not task.dense:
        guess = constant(setup, len(test.labels))
        metrics["constant"] = float(task.metric(guess, test.labels))
    if task.also:
        metrics["also"] = also(setup, logits, test.labels)
    if setup.settings["drift_examples"]:
        few = setup.settings["drift_examples"]
        metrics["drift"] = drift.measure(setup, shipped, held, few)
    return metrics


def _result(
    begun: Begun,
    fitted: Fitted,
    shipped: Variables,
    metrics: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """The content of `result.json`."""
    setup, settings, state = begun.setup, begun.setup.settings, fitted.state
    counts = dict(begun.program.partition.counts)
    first = jax.process_index() == 0  # it alone writes, and may take the delta away
    ever = tuned.ever_selected(state)
    if ever:  # a dynamic mask has selected more than it does now
        sizes = [
            f.sum() if f.ndim else f * state.values[p].size for p, f in ever.items()
        ]
        counts["ever"] = int(sum(sizes))
    return {
        "task": settings["task"]["name"],
        "backbone": settings["backbone"]["name"],
        "method": settings["method"]["name"],
        "seed": settings["seed"],
        "devices": setup.devices.size,
        "parallel": setup.devices.mode,
        "trainable": counts,
        "metrics": metrics,
        "cost": {
            "train_steps": settings["train_steps"],
            "selection_seconds": begun.selection_seconds,
            "train_seconds": fitted.seconds,
            "data_wait_seconds": fitted.wait_seconds,
            "step_flops": begun.program.flops,
            "optimizer_bytes": state_bytes(state),
            "delta_bytes": folder_bytes(folder / "delta") if first else 0,
        },
        "frozen_unchanged": tuned.frozen_unchanged(
            setup, begun.program, state, shipped
        ),
        "base_fingerprint": delta.fingerprint(setup.base._asdict()),
        "config": settings,
        "versions": versions(),
    }


def also(setup: Setup, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Name -> value of the task's further metrics."""
    metrics = setup.task.also
    return {name: float(metrics[name](logits, labels)) for name in metrics}


def constant(setup: Setup, count: int) -> np.ndarray:
    """Logits `[count, C]` of one guess for all: what training holds most of.

    Of a regression the mean of the training labels. What a run must beat: one that does
    not has failed.
    """
    labels, classes = setup.train.labels, len(setup.task.classes)
    if setup.task.regression:
        return np.full((count, 1), labels.mean(), np.float32)
    common = np.bincount(labels, minlength=classes).argmax()
    return np.tile(np.eye(classes, dtype=np.float32)[common], (count, 1))


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    libraries = ("subtune-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    return dict(zip(libraries, map(metadata.version, libraries), strict=True))


def state_bytes(state: State) -> int:
    """Bytes of the optimiser's state on one device."""
    return sum([leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)])


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum([f.stat().st_size for f in folder.rglob("*") if f.is_file()])
