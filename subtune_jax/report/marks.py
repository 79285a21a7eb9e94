"""What pictures of profiles, searches and comparisons share.

A row is the result of training one set of blocks, as in `profile.json`. Rows of fewer
steps than the longest were stopped early by successive halving: they are drawn
hollow, because their values do not compare with the others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle

from subtune_jax.report import themes
from subtune_jax.report.themes import LIGHT

Row = Mapping[str, Any]
Cells = Mapping[tuple[int, int], tuple[float, bool]]
SERIES = (LIGHT.train, "#2a9d77", "#8b5fbf", "#b8862b", "#c04878", LIGHT.validation)
MARKERS = "oD^svPX"
VALUES = LinearSegmentedColormap.from_list("values", ["#dfe9f8", "#79aaf2", "#163f7f"])
MUTED = {"color": LIGHT.muted, "fontsize": 9}


def stopped(rows: Iterable[Row]) -> list[bool]:
    """Which rows have fewer steps than the longest."""
    steps = [row["steps"] for row in rows]
    return [each < max(steps) for each in steps]


def spread(values: Sequence[float], gap: float) -> np.ndarray:
    """Positions near `values`, in the same order, at least `gap` apart.

    Of all such positions, those of the least squared distance (isotonic regression).

    >>> spread([1.0, 5.0, 1.0], gap=2.0)
    array([0., 5., 2.])
    """
    ranks = np.argsort(values, kind="stable")
    pools: list[tuple[float, int]] = []  # neighbours that touch: mean, count
    for at, value in enumerate(np.asarray(values, float)[ranks]):
        mean, count = value - gap * at, 1
        while pools and pools[-1][0] > mean:
            before, some = pools.pop()
            mean = (before * some + mean * count) / (some + count)
            count += some
        pools.append((mean, count))
    places = np.empty(len(ranks))
    level = [mean for mean, count in pools for _ in range(count)]
    places[ranks] = np.array(level) + gap * np.arange(len(ranks))
    return places


def page(
    width: float,
    heights: Sequence[float],
    content: Mapping[str, Any],
    more: Sequence[str] = (),
) -> tuple[Figure, list[Any]]:
    """A figure under its title, and its parts from top to bottom."""
    count, seconds = (content["cost"][key] for key in ("trainings", "seconds"))
    lines = [
        f"{content['task']} / {content['backbone']}",
        f"{content['metric']} on {content['split']}, ± standard deviation · {count:,} "
        f"training{'' if count == 1 else 's'}, {duration(seconds)}",
        *more,
    ]
    top = 0.2 + 0.19 * len(lines)
    figure = themes.canvas(width, top + sum(heights))
    parts: Any = figure.subfigures(len(heights) + 1, 1, height_ratios=[top, *heights])
    for at, line in enumerate(lines):
        look = MUTED if at else {**themes.title(LIGHT), "fontsize": 13}
        place = 0.1 / width, 1 - (0.22 + 0.2 * at) / top
        parts[0].text(*place, themes.cut(line, int(14 * width)), va="center", **look)
    return figure, [*parts[1:]]


def nothing() -> bytes:
    """The picture of no rows."""
    figure = themes.canvas(6.4, 3.8)
    themes.say(figure, "nothing was trained", LIGHT)
    return themes.png(figure)


def duration(seconds: float) -> str:
    """Seconds in their unit, such as `"3.2 min"`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"


def style(number: int) -> tuple[str, str]:
    """Colour and marker of a series; they come again together after 42."""
    return SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]


def means(
    axes: Axes, x: Sequence[float], rows: Sequence[Row], color: str, **look: Any
) -> None:
    """Means with their deviations and, where rows have them, the single values."""
    mean, std = ([row[key] for row in rows] for key in ("mean", "std"))
    look = {"ms": 5, "lw": 1.4, "elinewidth": 1, "capsize": 2, "zorder": 3, **look}
    axes.errorbar(x, mean, std, color=color, **look)
    for at, row in zip(x, rows, strict=True):
        values = row.get("values", ())
        axes.plot([at] * len(values), values, ".", color=color, alpha=0.25, ms=5)


def ring(axes: Axes, x: float, row: Row, word: str) -> None:
    """Marks a point; its value stands in the margin above all that is drawn."""
    point, color = (x, row["mean"]), LIGHT.validation
    axes.plot(*point, "o", ms=11, mfc="none", mec=color, mew=1.8, zorder=4)
    axes.annotate(
        f"{word} {row['mean']:.3f}", point, xytext=(x, 0.98), va="top", ha="center",
        textcoords=("data", "axes fraction"), fontsize=9, color=color, weight="bold",
        arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.5, "shrinkB": 6},
    )  # fmt: skip


def cells(
    figure: FigureBase,
    axes: Axes,
    cells: Cells,
    shape: tuple[int, int],
    scale: ScalarMappable,
    beyond: str = "neither",
) -> str:
    """Squares at (row, column) and a colour bar; a note for the heading.

    Where training was stopped, a square is small and hollow, and the note says so.
    """
    for (row, column), (value, early) in cells.items():
        side = 0.4 if early else 1
        square = Rectangle((column - side / 2, row - side / 2), side, side, lw=0.7)
        color: Any = scale.to_rgba(np.array(value))
        square.set_facecolor("none" if early else color)
        square.set_edgecolor(color if early else LIGHT.paper)
        axes.add_patch(square)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    look = {"aspect": 20 + 2 * shape[0], "extend": beyond, "extendfrac": 0.02}
    bar: Any = figure.colorbar(scale, ax=axes, pad=0.01, **look)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=LIGHT.muted, labelsize=8, length=0)
    return "; hollow: stopped early" if any(e for _, e in cells.values()) else ""


def outline(axes: Axes, row: int, column: int, color: str, style: str = "-") -> None:
    """Frames the cell at (row, column)."""
    look = {"fill": False, "ec": color, "lw": 1.6, "ls": style, "zorder": 4}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **look))


def room(names: Sequence[str], letters: int = 24) -> float:
    """Inches that names need side by side."""
    longest = max(map(len, names), default=0)
    return 0.085 * len(names) * min(longest, letters)


def ticks(
    axes: Axes,
    names: Sequence[str],
    width: float = math.inf,
    side: str = "x",
    letters: int = 24,
) -> None:
    """Names the places 0, 1, ... of an axis `width` inches long; upright if need be."""
    getattr(axes, f"set_{side}ticks")(
        range(len(names)), [themes.cut(name, letters) for name in names],
        fontsize=themes.font(len(names), 8, 60), color=LIGHT.ink,
        rotation=90 * (room(names, letters) > width),
    )  # fmt: skip


def right(
    axes: Axes,
    values: Sequence[float],
    words: Sequence[str],
    colors: Sequence[str] | None = None,
    gap: float = 0,
) -> None:
    """Writes words to the right of `axes` at `values`, `gap` of its height apart."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # what is drawn next must not move the words
    colors = colors or [LIGHT.muted] * len(words)
    heights = spread(values, gap * (high - low))
    for at, text, color in zip(heights, words, colors, strict=True):
        axes.annotate(
            text, (1.012, at), xycoords=("axes fraction", "data"), va="center",
            fontsize=8, color=color, annotation_clip=False,
        )  # fmt: skip
