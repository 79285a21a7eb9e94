"""The picture of costs: the metric against operations and trained elements."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from subtune_jax.report import marks, themes
from subtune_jax.report.marks import MUTED, Row
from subtune_jax.report.themes import LIGHT


def pareto(rows: Sequence[Row], metric: str = "accuracy") -> bytes:
    """The metric against two costs, each with its Pareto front.

    Args:
      rows: `{"method", "mean", "std", "flops", "trainable"}` each; `flops` of the whole
        training, search included.
      metric: name of what `mean` is.
    """
    if not rows:
        return marks.nothing()
    figure = themes.canvas(11, 4.4)
    panels: Any = figure.subplots(1, 2, sharey=True)
    costs = {
        "flops": ("operations", "floating-point operations, search included"),
        "trainable": ("trained elements", "trainable elements of the base"),
    }
    for axes, (key, (short, words)) in zip(panels, costs.items(), strict=True):
        _costs(axes, rows, key)
        themes.frame(axes, f"{metric} against {short}", LIGHT)
        axes.set_xlabel(f"{words}; filled: Pareto front", **MUTED)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed in pixels that must stay
    for axes, key in zip(panels, costs, strict=True):
        _label(axes, rows, key)
    return themes.png(figure)


def front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Which points are on the Pareto front: low cost, high value.

    A point is off it when another is no worse in both and better in one.

    >>> front([1, 2, 3, 3], [5, 4, 6, 6])
    [True, False, True, True]
    """
    leaders, level = set(), -math.inf
    points = list(zip(costs, values, strict=True))
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if value > level:
            leaders.add((cost, value))
            level = value
    return [point in leaders for point in points]


def logarithmic(costs: Sequence[float]) -> tuple[list[float], dict[float, str]]:
    """Places of `costs` on a logarithmic axis, and its ticks.

    Zeros have a place of their own, left of the decade of the least positive cost.

    >>> logarithmic([0, 200, 3000])[0]
    [10.0, 200, 3000]
    """
    some = [cost for cost in costs if cost > 0] or [1]
    low, high = math.floor(math.log10(min(some))), math.ceil(math.log10(max(some)))
    step = 1 + (high - low) // 6
    ticks = {10.0**n: f"$10^{{{n}}}$" for n in range(low, high + step, step)}
    zero = 10.0 ** (low - step)
    if min(costs) <= 0:
        ticks = {zero: "0", **ticks}
    return [cost if cost > 0 else zero for cost in costs], ticks


def _corners(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """The corners of the front's line, from its first point to its last."""
    x, _ = logarithmic([row[key] for row in rows])
    mean = [row["mean"] for row in rows]
    on = zip(x, mean, front(x, mean), strict=True)
    points = sorted({(cost, value) for cost, value, best in on if best})
    corners = points[:1]
    for cost, value in points[1:]:
        corners += [(cost, corners[-1][1]), (cost, value)]
    return corners


def _costs(axes: Axes, rows: Sequence[Row], key: str) -> None:
    """Means against a cost on a logarithmic axis, and the front."""
    x, ticks = logarithmic([row[key] for row in rows])
    best = front(x, [row["mean"] for row in rows])
    looks = {False: (LIGHT.muted, LIGHT.paper), True: (LIGHT.train, LIGHT.train)}
    for on, (color, face) in looks.items():
        some = [at for at in range(len(rows)) if best[at] == on]
        if some:
            x_some, rows_some = [x[at] for at in some], [rows[at] for at in some]
            marks.means(axes, x_some, rows_some, color, marker="o", mfc=face, ls="")
    corners = zip(*_corners(rows, key), strict=True)
    axes.plot(*corners, color=LIGHT.train, lw=1.2, alpha=0.5)
    axes.set_xscale("log")
    axes.set_xlim(min(ticks) / 2, max(ticks) * 2)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    if "0" in ticks.values():  # the axis is broken between 0 and the first decade
        zero, first, *_ = ticks
        axes.axvline(math.sqrt(zero * first), color=LIGHT.faint, ls=(0, (2, 3)))
    axes.margins(y=0.15)


def _label(axes: Axes, rows: Sequence[Row], key: str) -> None:
    """Writes each method's name by its point, clear of what is drawn already."""
    x, _ = logarithmic([row[key] for row in rows])
    best = front(x, [row["mean"] for row in rows])
    pixels = axes.transData.transform
    mean, std = (np.array([row[k] for row in rows], float) for k in ("mean", "std"))
    points = pixels(np.stack([x, mean], 1))
    bars = [pixels(np.stack([x, mean + sign * std], 1)) for sign in (-1, 1)]
    line = pixels(_corners(rows, key))
    marks = np.concatenate([
        np.concatenate([points - 5, points + 5], 1),
        np.concatenate([bars[0] - 2, bars[1] + 2], 1),
        np.concatenate([line[:-1] - 1, line[1:] + 1], 1),
    ])  # fmt: skip
    texts: list[Any] = [
        axes.annotate(
            themes.cut(row["method"], 24), point, xytext=point, fontsize=8,
            xycoords="figure pixels", textcoords="figure pixels",
            color=LIGHT.ink if on else LIGHT.muted, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": LIGHT.muted, "lw": 0.6},
        )
        for row, point, on in zip(rows, points, best, strict=True)
    ]  # fmt: skip
    boxes = np.array([text.get_window_extent().size for text in texts])
    corners = places(points, boxes, marks, np.array(axes.bbox.padded(-4).extents))
    for text, corner, box, point in zip(texts, corners, boxes, points, strict=True):
        text.set_position(corner)
        away = np.abs(corner + box / 2 - point) - box / 2
        text.arrow_patch.set_visible(away.max() > 12)  # a near label needs no line


def places(
    points: np.ndarray, boxes: np.ndarray, marks: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Lower left corners `[N, 2]` of labels by their points, all in pixels.

    Each label goes to the place around its point where it covers least of the marks
    and of other labels, and distance costs too. Three sweeps: in the first one, a
    label does not know those after it.

    Args:
      points: `[N, 2]`.
      boxes: `[N, 2]` width and height of the labels.
      marks: `[M, 4]` left, bottom, right and top of what should stay visible.
      bounds: `[4]` of the panel, which no label should leave.
    """
    around = np.array(
        [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    )
    reaches = np.repeat([8, 20, 35, 55], len(around))[:, None]
    away = np.tile(around, (4, 1))
    corners = np.full((len(points), 4), -np.inf)
    for at in [*range(len(points))] * 3:
        middle = points[at] + away * (reaches + boxes[at] / 2)
        options = np.concatenate([middle - boxes[at] / 2, middle + boxes[at] / 2], 1)
        others = np.concatenate([marks, np.delete(corners, at, 0)])
        covered = _overlap(options, others).sum(1)
        outside = np.prod(boxes[at]) - _overlap(options, bounds[None])[:, 0]
        cost = covered + 5 * outside + 2 * reaches[:, 0]
        corners[at] = options[np.argmin(cost.round(3))]
    return corners[:, :2]


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`[N, M]`: the area that boxes `[N, 4]` share with boxes `[M, 4]`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1)
