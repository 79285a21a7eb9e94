"""Base + delta on a split.

    subtune evaluate --config=FILE --workdir=DIR --delta=DIR [--split=test]

Writes `evaluation.json`. Without `--delta`, the delta of the workdir is used.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import delta
from subtune_jax.core import devices, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.data import dataset
from subtune_jax.training import assembly, loop, results, setup, step, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.step import Fixed

SPLITS = ("train", "validation", "test")


def run(
    settings: Settings, workdir_: Path, delta_folder: Path | None, split: str = "test"
) -> Path:
    """Evaluates and returns the path of `evaluation.json`.

    Args:
      settings: complete.
      workdir_: where the result is written.
      delta_folder: of the delta; None for that of the workdir.
      split: one of `SPLITS`.

    Raises:
      ValueError: the delta is of another base, or has another number of classes.
    """
    folder = delta_folder or workdir_ / "delta"
    made = setup.prepare(settings)
    whole = Variables(**delta.load(folder, made.base._asdict()))
    examples = setup.examples(made.backbone, getattr(made.task, split))
    logits = outputs(made, whole, examples)
    classes = len(made.task.classes)
    if logits.shape[-1] != classes:
        found = f"delta {folder} has {logits.shape[-1]} classes"
        raise ValueError(f"{found}; task {made.task.name} has {classes}")
    value = float(made.task.metric(logits, examples.labels))
    metric: dict[str, Any] = {"name": made.task.metric_name, "value": value}
    if made.task.also:
        metric["also"] = results.also(made, logits, examples.labels)
    result = {
        "task": made.task.name,
        "backbone": made.backbone.name,
        "split": split,
        "examples": len(examples.labels),
        "metric": metric,
        "delta": str(folder),
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
    }
    print(f"{split} {made.task.metric_name} {value:.4f}", file=sys.stderr)
    return workdir.write_json(workdir_ / "evaluation.json", result)


def outputs(
    made: setup.Setup,
    variables: Variables,
    examples: dataset.Examples,
    *,
    stop: str | None = None,
) -> np.ndarray:
    """Logits `[N, C]` of a whole network, or what enters block `stop`, `[N, ...]`."""
    recipe = assembly.plain_recipe(made)
    flat = trees.flatten(variables.params)
    state, frozen = step.start(recipe, flat, variables.stats, {}, {})
    state, fixed = devices.replicate(made.devices, (state, Fixed(frozen, {}, {})))
    predict = loop.predictor(made.devices, recipe, setup.batch_rows(made), stop=stop)
    return loop.predict(predict, state, fixed, examples)
