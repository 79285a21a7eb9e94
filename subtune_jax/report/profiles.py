"""The picture of a profile: blocks, runs of blocks, pairs, and proxies."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from subtune_jax.report import marks, themes
from subtune_jax.report.marks import MUTED, Row
from subtune_jax.report.themes import LIGHT

# reinitialise -> heading, name of the empty set, name of the full set
EXPERIMENTS = {
    "nothing": ("each block trained alone", "head only", "all blocks"),
    "trained": (
        "each block trained alone from random values",
        "head only",
        "all random",
    ),
    "frozen": ("each block random and frozen", "none random", "all random"),
    "full": ("each block random, all trained", "none random", "all random"),
}


def profile(content: Mapping[str, Any]) -> bytes:
    """The picture of `profile.json`.

    The value of each block and run of blocks, input to output; below it, where there
    are any, the pairs, and the proxies against the value.
    """
    rows, proxies = content["rows"], content.get("proxies") or {}
    names = order(rows)
    pairs = any(len(row["blocks"]) == 2 and centre(row, names) is None for row in rows)
    columns = max(1, min(len(proxies), 2 if pairs else 4))
    heights = [3.6]
    if rows and (pairs or proxies):
        scatters = 2.1 * math.ceil(len(proxies) / columns)
        heights.append(max(scatters, 2.0 + 0.22 * len(names) if pairs else 0))
    figure, parts = marks.page(10, heights, content)
    if not rows:
        themes.say(parts[0], "nothing was trained", LIGHT)
        return themes.png(figure)
    _profile(parts[0], content, names)
    if pairs and proxies:
        parts[1:] = parts[1].subfigures(1, 2, width_ratios=[1.15, 1])
    if pairs:
        _pairs(parts[1], rows, names, content.get("best"))
    if proxies:
        _proxies(parts[-1], proxies, rows, names, columns)
    return themes.png(figure)


def order(rows: Sequence[Row]) -> list[str]:
    """The blocks of all rows, input to output: sets are listed in this order."""
    return list(dict.fromkeys(name for row in rows for name in row["blocks"]))


def centre(row: Row, names: Sequence[str]) -> float | None:
    """The centre of a run of consecutive blocks on the axis of `names`; else `None`.

    >>> centre({"blocks": ["b", "c"]}, "abc"), centre({"blocks": ["a", "c"]}, "abc")
    (1.5, None)
    """
    where = [names.index(name) for name in row["blocks"]]
    if not where or max(where) - min(where) >= len(where):
        return None
    return (min(where) + max(where)) / 2


def _profile(figure: FigureBase, content: Mapping[str, Any], names: list[str]) -> None:
    axes, rows = figure.subplots(), content["rows"]
    heading, none, full = EXPERIMENTS[content["reinitialise"]]
    axes.margins(y=0.15)
    series: dict[int, list[tuple[float, Row, bool]]] = {}
    for row, hollow in zip(rows, marks.stopped(rows), strict=True):
        length, place = len(row["blocks"]), centre(row, names)
        if place is not None and (length == 1 or length < len(names)):
            series.setdefault(length, []).append((place, row, hollow))
        if place is not None and row["blocks"] == content.get("best"):
            marks.ring(axes, place, row, "best")
    for number, (length, points) in enumerate(sorted(series.items())):
        label = "one block" if length == 1 else f"run of {length} blocks"
        _series(axes, points, number, label)
    ends = [(none, row) for row in rows if not row["blocks"]]
    ends += [(full, row) for row in rows if row["blocks"] == names != []]
    for _, row in ends:
        axes.axhline(row["mean"], color=LIGHT.muted, lw=1, ls=(0, (4, 3)), zorder=0)
        low, high = row["mean"] - row["std"], row["mean"] + row["std"]
        axes.axhspan(low, high, color=LIGHT.muted, alpha=0.08, lw=0)
    words = [f"{name}\n{row['mean']:.3f}" for name, row in ends]
    marks.right(axes, [row["mean"] for _, row in ends], words, gap=0.13)
    themes.frame(axes, f"{content['metric']}, {heading}", LIGHT)
    if set(series) - {1}:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), fontsize=8,
            frameon=False, labelcolor=LIGHT.ink, borderaxespad=0.1,
        )  # fmt: skip
    early = any(marks.stopped(rows))
    note = "; hollow: stopped early, after fewer steps" if early else ""
    axes.set_xlabel(f"block, input to output{note}", **MUTED)
    axes.set_xlim(-0.6, len(names) - 0.4)
    marks.ticks(axes, names, 8.0, letters=16)


def _series(
    axes: Axes, points: Sequence[tuple[float, Row, bool]], number: int, label: str
) -> None:
    """Runs of one length; a line joins neighbours that were both trained to the end."""
    color, marker = marks.style(number)
    line = [math.nan if hollow else row["mean"] for _, row, hollow in points]
    axes.plot([place for place, *_ in points], line, color=color, lw=1.4)
    axes.plot([], [], color=color, marker=marker, ms=5, lw=1.4, label=label)
    for place, row, hollow in points:
        look = {"mfc": LIGHT.paper, "alpha": 0.5} if hollow else {}
        marks.means(axes, [place], [row], color, marker=marker, **look)


def _pairs(
    figure: FigureBase,
    rows: Sequence[Row],
    names: Sequence[str],
    best: Sequence[str] | None,
) -> None:
    """Lower triangle: the value of each pair; on the diagonal that of each block."""
    axes, cells = figure.subplots(), {}
    for row, early in zip(rows, marks.stopped(rows), strict=True):
        if len(row["blocks"]) in (1, 2):
            where = [names.index(name) for name in row["blocks"]]
            cells[max(where), min(where)] = row["mean"], early
            if row["blocks"] == best:
                marks.outline(axes, max(where), min(where), LIGHT.validation)
    values = [value for value, _ in cells.values()]
    low, high = min(values), max(values)
    scale = ScalarMappable(Normalize(low, high), marks.VALUES)
    note = marks.cells(figure, axes, cells, (len(names), len(names)), scale)
    for (row, column), (value, early) in cells.items() if len(names) <= 12 else ():
        dark = value > (low + high) / 2 and not early
        axes.text(
            column, row, f"{value:.3f}".removeprefix("0"), ha="center", va="center",
            fontsize=7, color=LIGHT.paper if dark else LIGHT.ink,
        )  # fmt: skip
    themes.frame(axes, f"pairs, and blocks on the diagonal{note}", LIGHT, grid=False)
    marks.ticks(axes, names, 3.5, letters=16)
    marks.ticks(axes, names, side="y", letters=16)


def _proxies(
    figure: FigureBase,
    proxies: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Row],
    names: Sequence[str],
    columns: int,
) -> None:
    """The value of each block by itself against each proxy's score of it."""
    lines = math.ceil(len(proxies) / columns)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).reshape(-1)
    for axes in grid[len(proxies) :]:
        axes.set_axis_off()
    for axes, (name, proxy) in zip(grid, proxies.items(), strict=False):
        scores, rank = proxy["scores"], proxy["rank_correlation"]
        for row, early in zip(rows, marks.stopped(rows), strict=True):
            block = row["blocks"][0] if len(row["blocks"]) == 1 else None
            if block in scores:
                depth = names.index(block) / max(len(names) - 1, 1)
                color = marks.VALUES(0.25 + 0.75 * depth)
                look = {"color": color, "mfc": LIGHT.paper if early else color}
                axes.plot(scores[block], row["mean"], "o", ms=5.5, **look)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if scores and 0 < 100 * min(scores.values()) < max(scores.values()):
            axes.set_xscale("log")
        # Adding 0 makes a rounded -0.0 positive.
        words = "none" if rank is None else f"{round(rank, 2) + 0:+.2f}"
        heading = f"{themes.cut(name, 20)}\nrank correlation {words}"
        themes.frame(axes, heading, LIGHT)
        axes.set_xlabel(f"score, {marks.duration(proxy['seconds'])}", **MUTED)
    figure.supylabel("value of the block", **MUTED)
    figure.supxlabel("darker: nearer to the output", **MUTED)
