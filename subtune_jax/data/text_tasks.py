"""What tasks of texts share: duplicates, held-out parts, and regressions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subtune_jax.core import losses
from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import agreement, splits
from subtune_jax.data.text_files import Table

MOST = 2000


def content(example: Mapping[str, Any]) -> tuple[str, ...]:
    """What is the same for examples of the same texts, white space aside."""
    return tuple(" ".join(part.split()) for part in example.values())


def split(table: Table, labels: np.ndarray) -> Split:
    """The examples of a file, with `labels` `[N]` for what stands there."""
    return Split(lambda index: dict(table.examples[int(index)]), labels)


def hold_out(
    whole: Split, validation: float | int | None, seed: int
) -> tuple[Split, Split]:
    """Training and validation, both cut from `whole`, stratified.

    Args:
      whole: all examples.
      validation: a fraction in (0, 1) of them, or how many; None for a tenth, at most
        2,000: more would cost more time than they tell.
      seed: of the cut.

    Raises:
      ValueError: a part would have no examples.
    """
    total = len(whole.labels)
    count = validation
    if validation is None:
        count = max(1, min(total // 10, MOST))
    elif isinstance(validation, float) and 0 < validation < 1:
        count = round(validation * total)
    if not isinstance(count, int) or not 0 < count < total:
        what = f"validation={validation!r} of {total} training examples"
        raise ValueError(f"{what}; both parts have one at least")
    kept, cut = splits.stratified(whole.labels, [total - count, count], seed)
    return _part(whole, kept), _part(whole, cut)


def _part(whole: Split, indices: np.ndarray) -> Split:
    return splits.part(whole.read, whole.labels, indices)


def regression(task: Task) -> Task:
    """`task`, whose labels are numbers, with the loss and metrics of a regression.

    Pearson's correlation decides; Spearman's and the mean squared error are reported.
    """
    return task._replace(
        loss=losses.squared,
        metric_name="pearson",
        metric=agreement.pearson,
        also={
            "spearman": agreement.spearman,
            "mean_squared_error": agreement.mean_squared_error,
        },
    )
