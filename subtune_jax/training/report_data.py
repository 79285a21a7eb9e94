"""What the report of a run shows, besides its result: shares, confusions, mistakes."""

from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import report
from subtune_jax.core import trees
from subtune_jax.data import dense
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import additive
from subtune_jax.selection import masks
from subtune_jax.training import workdir
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup


def write(
    folder: Path,
    setup: Setup,
    program: Program,
    result: dict[str, Any],
    logits: np.ndarray,
    test: Examples,
) -> None:
    """Writes `report.html` and `report.png`; `logits` are of the `test` split."""
    shown = setup, logits, test.labels, test
    report.write(
        folder,
        result,
        workdir.read_log(folder),
        shares(setup, program),
        confusion(logits, test.labels, len(setup.task.classes)),
        setup.task.classes,
        [] if setup.task.dense else mistakes(*shown),
        worst(*shown) if setup.task.dense else (),
    )


def shares(setup: Setup, program: Program) -> dict[str, tuple[int, int]]:
    """Block -> (elements that are trained, all elements of the network)."""
    params, mask = setup.variables.params, program.partition.mask
    return {
        block: (
            masks.count(params.get(block, {}), mask.get(block, {}))
            + additive.count(program.partition.additive, block),
            sum(
                np.size(leaf) for leaf in trees.flatten(params.get(block, {})).values()
            ),
        )
        for block in setup.backbone.blocks
    }


def confusion(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[C, C]`, of pixels where there are masks: rows are true classes.

    Of a regression, which has none, truth and prediction of each example, floats
    `[N, 2]`.
    """
    if labels.ndim > 1:
        return dense.total(logits, labels)
    if np.issubdtype(labels.dtype, np.floating):
        return np.stack([labels, logits[:, 0]], axis=1).astype(float)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(-1)), 1)
    return counts


def mistakes(
    setup: Setup, logits: np.ndarray, labels: np.ndarray, images: Any, count: int = 12
) -> list[dict[str, Any]]:
    """The `count` most confident mistakes: example, truth, guess, probability.

    Of a regression the largest errors, without a probability.

    Args:
      setup: of the run.
      logits: `[N, C]` of the test split.
      labels: `[N]` likewise.
      images: the test split as the network takes it. Of texts the task's own test
        split is read: who looks at a mistake reads no tokens.
      count: of mistakes.
    """
    if setup.task.regression:
        return _errors(setup, logits[:, 0], labels, images, count)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    guess = logits.argmax(-1)
    wrong = np.flatnonzero(guess != labels)
    worst = wrong[np.argsort(-odds[wrong, guess[wrong]], kind="stable")][:count]
    names = setup.task.classes
    return [
        {
            **_shown(setup, images, i),
            "truth": names[labels[i]],
            "guess": names[guess[i]],
            "probability": float(odds[i, guess[i]]),
        }
        for i in worst
    ]


def _errors(
    setup: Setup, found: np.ndarray, labels: np.ndarray, images: Any, count: int
) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(found - labels), kind="stable")[:count]
    return [
        {
            **_shown(setup, images, i),
            "truth": f"{labels[i]:.3g}",
            "guess": f"{found[i]:.3g}",
            "probability": None,
        }
        for i in order
    ]


def _shown(setup: Setup, images: Any, index: int) -> dict[str, Any]:
    """What a reader is shown of a test example: its image, or its texts."""
    if setup.backbone.encode is None:
        return {"image": images.read(np.asarray([index]))[0]}
    return setup.task.test.read(int(index))


def worst(
    setup: Setup, logits: np.ndarray, truth: np.ndarray, images: Any, count: int = 6
) -> list[dict[str, Any]]:
    """The `count` images of the lowest metric: image, truth, guess, metric."""
    pairs = zip(logits, truth, strict=True)
    each = [setup.task.metric(x[None], y[None]) for x, y in pairs]
    return [
        {
            "image": images.read(np.asarray([i]))[0],
            "truth": truth[i],
            "guess": dense.guess(logits[i], truth[i].shape),
            "metric": float(each[i]),
        }
        for i in np.argsort(each, kind="stable")[:count]
    ]
