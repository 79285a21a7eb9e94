"""Base + delta on a split.

    subtune evaluate --config=FILE --workdir=DIR --delta=DIR [--split=test]

Writes `evaluation.json`. Without `--delta`, the delta of the workdir is used.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import (
    commands,
    dataset,
    delta,
    devices,
    loop,
    outcome,
    runs,
    setup,
    step,
    trees,
)
from subtune_jax import workdir as workdir_
from subtune_jax.contracts import Variables
from subtune_jax.settings import Settings
from subtune_jax.step import Fixed

SPLITS = ("train", "validation", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = commands.parser("evaluate", "evaluate base + delta on a split")
    parse.add_argument("--delta", type=Path, help="a delta folder; WORKDIR/delta")
    parse.add_argument("--split", choices=SPLITS, default="test")
    return commands.run(parse, run, argv)


def run(settings: Settings, given: argparse.Namespace) -> Path:
    """Evaluates and returns the path of `evaluation.json`.

    Raises:
      ValueError: the delta is of another base, or has another number of classes.
    """
    folder = given.delta or given.workdir / "delta"
    made = setup.prepare(settings)
    whole = Variables(**delta.load(folder, made.base._asdict()))
    split = getattr(made.task, given.split)
    examples = setup.examples(made.backbone, split)
    logits = outputs(made, whole, examples)
    classes = len(made.task.classes)
    if logits.shape[-1] != classes:
        found = f"delta {folder} has {logits.shape[-1]} classes"
        raise ValueError(f"{found}; task {made.task.name} has {classes}")
    value = float(made.task.metric(logits, examples.labels))
    metric: dict[str, Any] = {"name": made.task.metric_name, "value": value}
    if made.task.also:
        metric["also"] = outcome.also(made, logits, examples.labels)
    result = {
        "task": made.task.name,
        "backbone": made.backbone.name,
        "split": given.split,
        "examples": len(examples.labels),
        "metric": metric,
        "delta": str(folder),
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
    }
    print(f"{given.split} {made.task.metric_name} {value:.4f}", file=sys.stderr)
    return workdir_.write_json(given.workdir / "evaluation.json", result)


def outputs(
    made: setup.Setup,
    variables: Variables,
    examples: dataset.Examples,
    *,
    stop: str | None = None,
) -> np.ndarray:
    """Logits `[N, C]` of a whole network, or what enters block `stop`, `[N, ...]`."""
    recipe = runs.plain_recipe(made)
    flat = trees.flatten(variables.params)
    state, frozen = step.start(recipe, flat, variables.stats, {}, {})
    state, fixed = devices.replicate(made.devices, (state, Fixed(frozen, {}, {})))
    predict = loop.predictor(made.devices, recipe, setup.batch_rows(made), stop=stop)
    return loop.predict(predict, state, fixed, examples)


if __name__ == "__main__":
    sys.exit(main())
