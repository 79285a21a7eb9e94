"""Pictures of a run: each function draws one panel into a (sub)figure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, MaxNLocator

from subtune_jax.report import themes
from subtune_jax.report.themes import Theme


def curve(
    figure: FigureBase,
    records: Sequence[Mapping[str, Any]],
    metric: str,
    baseline: float | None = None,
    theme: Theme = themes.LIGHT,
) -> None:
    """Training loss over steps; below it the metric on validation, when there is any.

    Args:
      figure: to draw into.
      records: of `metrics.jsonl`; loss of the split "train", `metric` of "validation".
      metric: its name.
      baseline: the same metric of the linear probe, a dashed line.
      theme: colours.
    """
    loss = _series(records, "train", "loss")
    points = _series(records, "validation", metric)
    if not len(loss) and not len(points):
        themes.say(figure, "no training records", theme)
        return
    panels = [panel for panel in (loss, points) if len(panel)]
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    if len(loss):
        smooth = _smooth(loss[:, 1])
        axes[0].plot(loss[:, 0], loss[:, 1], color=theme.train, alpha=0.25, lw=1)
        axes[0].plot(loss[:, 0], smooth, color=theme.train, lw=2)
        words = "training loss (bold: running mean)"
        themes.frame(axes[0], words, theme)
    if len(points):
        _points(axes[-1], points, baseline, theme)
        themes.frame(axes[-1], f"validation {metric}", theme)
    axes[-1].set_xlabel("step", color=theme.muted, fontsize=9)
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))


def blocks(
    figure: FigureBase,
    shares: Mapping[str, tuple[int, int]],
    theme: Theme = themes.LIGHT,
) -> None:
    """One bar a block, input on top: the share of its parameters that was trained.

    The axis is logarithmic when the shares differ by more than a factor of 30.
    """
    if not shares:
        themes.say(figure, "no blocks", theme)
        return
    axes = figure.subplots()
    names = list(shares)
    share = np.array([part / max(whole, 1) for part, whole in shares.values()])
    some = share[share > 0]
    log = some.size > 0 and some.max() / some.min() > 30
    top = max(float(share.max()), 1e-12) if not log else 1.0
    left = 10 ** math.floor(math.log10(some.min()) - 0.3) if log else 0.0
    rows = np.arange(len(names))
    axes.barh(rows, top - left, left=left, color=theme.faint, height=0.62)
    width = np.where(share > 0, share - left, 0)
    axes.barh(rows, width, left=left, color=theme.train, height=0.62)
    if log:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlim(left, top)
    size = themes.font(len(names), 9)
    for row, (part, whole) in enumerate(shares.values()):
        text = f"{themes.short(part)} of {themes.short(whole)}" if part else "frozen"
        color = theme.ink if part else theme.muted
        axes.annotate(
            text, (1.01, row), xycoords=("axes fraction", "data"), va="center",
            fontsize=size, color=color, annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(len(names) - 0.4, -0.6)
    themes.frame(axes, "trained share of each block", theme, grid=False)
    scale = " (log scale)" if log else ""
    words = f"trained elements, as a share of the block's{scale}"
    axes.set_xlabel(words, color=theme.muted, fontsize=9)
    axes.set_yticks(
        rows, [themes.cut(name, 24) for name in names], fontsize=size, color=theme.ink
    )
    axes.spines["bottom"].set_visible(False)


def confusion(
    figure: FigureBase,
    matrix: np.ndarray,
    classes: Sequence[str],
    theme: Theme = themes.LIGHT,
) -> None:
    """Rows are the truth, columns the guess; colour is the share of the row.

    Counts are printed up to 12 classes, names up to 40; beyond, every tenth number.
    """
    count = len(classes)
    matrix = np.asarray(matrix)
    if not count or not matrix.sum():
        themes.say(figure, "nothing was classified", theme)
        return
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    colors = themes.ramp(theme)
    axes.imshow(np.sqrt(share), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    if count <= 12:
        for row, column in np.ndindex(matrix.shape):
            if matrix[row, column]:
                dark = share[row, column] > 0.3
                axes.text(
                    column, row, str(matrix[row, column]), ha="center", va="center",
                    fontsize=themes.font(count, 10, room=12),
                    color=theme.paper if dark else theme.ink,
                )  # fmt: skip
    themes.frame(axes, "confusion matrix of the test split", theme, grid=False)
    ticks = range(0, count, 1 if count <= 40 else 10)
    names = [themes.cut(classes[t], 14) if count <= 40 else str(t) for t in ticks]
    size = themes.font(len(ticks), 9, room=18)
    upright = max(map(len, names)) * count > 40
    axes.set_xticks(ticks, names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set_xlabel("guess", color=theme.muted, fontsize=9)
    axes.set_ylabel("truth", color=theme.muted, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def mistakes(
    figure: FigureBase,
    examples: Sequence[Mapping[str, Any]],
    heading: str = "mistakes on the test split",
    theme: Theme = themes.LIGHT,
) -> None:
    """Up to eight images that were classified wrongly: guess, probability, truth."""
    examples = list(examples)[:8]
    if not examples:
        themes.say(figure, "no mistakes to show", theme)
        return
    columns = min(4, len(examples))
    rows = math.ceil(len(examples) / columns)
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in grid:
        axes.set_axis_off()
    for axes, example in zip(grid, examples, strict=False):
        axes.imshow(np.asarray(example["image"]), interpolation="nearest")
        odds = example["probability"]
        guess = f"guess {themes.cut(example['guess'], 14)}"
        guess += "" if odds is None else f" ({odds:.2f})"
        axes.set_title(guess, fontsize=9, color=theme.validation, pad=4)
        axes.text(
            0.5, -0.04, f"truth {themes.cut(example['truth'], 16)}", fontsize=9,
            ha="center", va="top", transform=axes.transAxes, color=theme.ink,
        )  # fmt: skip
    figure.suptitle(heading, x=0.01, ha="left", **themes.title(theme))


def _points(
    axes: Axes, points: np.ndarray, baseline: float | None, theme: Theme
) -> None:
    axes.plot(*points.T, color=theme.validation, lw=2, marker="o", ms=5)
    if baseline is not None:
        axes.axhline(baseline, color=theme.muted, lw=1, ls=(0, (4, 3)))
        axes.annotate(
            f"linear probe {baseline:.3f}", (0.01, baseline), va="bottom",
            xycoords=("axes fraction", "data"), fontsize=8, color=theme.muted,
        )  # fmt: skip
    axes.annotate(
        f"{points[-1, 1]:.3f}", points[-1], xytext=(0, 7), textcoords="offset points",
        ha="right", fontsize=9, color=theme.validation, weight="bold",
    )  # fmt: skip
    axes.margins(y=0.2)


def _series(records: Sequence[Mapping[str, Any]], split: str, key: str) -> np.ndarray:
    rows = [
        (record["step"], record[key])
        for record in records
        if record.get("split") == split and record.get(key) is not None
    ]
    return np.array(rows, float).reshape(-1, 2)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a twentieth of the curve, shorter at its ends."""
    half = len(values) // 40
    sums = np.concatenate([[0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
