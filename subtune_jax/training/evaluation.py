"""Base + delta on a split."""

import sys
from pathlib import Path
from typing import Any

from subtune_jax import delta
from subtune_jax.core.contracts import Variables
from subtune_jax.training import prediction, results, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import examples, prepare

SPLITS = ("train", "validation", "test")


def run(
    settings: Settings, folder: Path, delta_folder: Path | None, split: str = "test"
) -> Path:
    """Evaluates and returns the path of `evaluation.json`.

    Args:
      settings: complete.
      folder: where the result is written.
      delta_folder: of the delta; None for that of `folder`.
      split: one of `SPLITS`.

    Raises:
      ValueError: the delta is of another base, or has another number of classes.
    """
    path = delta_folder or folder / "delta"
    setup = prepare(settings)
    task, classes = setup.task, len(setup.task.classes)
    tuned = Variables(**delta.load(path, setup.base._asdict()))
    rows = examples(setup.backbone, getattr(task, split))
    logits = prediction.frozen(setup, tuned)(rows)
    if logits.shape[-1] != classes:
        what = f"delta {path} has {logits.shape[-1]} classes"
        raise ValueError(f"{what}; task {task.name} has {classes}")
    value = float(task.metric(logits, rows.labels))
    metric: dict[str, Any] = {"name": task.metric_name, "value": value}
    if task.also:
        metric["also"] = results.also(setup, logits, rows.labels)
    result = {
        "task": task.name,
        "backbone": setup.backbone.name,
        "split": split,
        "examples": len(rows.labels),
        "metric": metric,
        "delta": str(path),
        "base_fingerprint": delta.fingerprint(setup.base._asdict()),
    }
    print(f"{split} {task.metric_name} {value:.4f}", file=sys.stderr)
    return workdir.write_json(folder / "evaluation.json", result)
