"""The picture of a search: its rounds, its value, and the final trainings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from subtune_jax.report import marks, themes
from subtune_jax.report.marks import MUTED, Cells, Row
from subtune_jax.report.themes import LIGHT

GAINS = LinearSegmentedColormap.from_list(
    "gains", ["#a8430f", LIGHT.validation, "#f1f2f4", LIGHT.train, "#163f7f"]
)


def search(content: Mapping[str, Any]) -> bytes:
    """The picture of `search.json`.

    What each item would have changed in each round, the value along the way, and the
    test metric of the final trainings where there are any.
    """
    items, rounds = content["items"], len(content["rounds"])
    final = (content.get("final") or {}).get("rows", [])
    selected = ", ".join(content["selected"]) or "the head alone"
    share = f"{len(content['selected'])} of {len(items)}"
    about = [
        f"{content['direction']} search, rule {content['rule']}, epsilon "
        f"{content['epsilon']:g} · selected {share}: {selected}",
        f"stopped: {content['stop']}",
    ]
    width = max(10.0, 3 + 0.17 * len(items))
    heights = [2.1 + 0.22 * rounds, 3.3] if rounds else [3.3]
    figure, parts = marks.page(width, heights, content, about)
    if rounds:
        _rounds(parts[0], content, width - 4)
    if final:
        parts[-1:] = parts[-1].subfigures(1, 2, width_ratios=[width - 5.2, 5.2])
        _final(parts[-1], final, content["metric"])
    _path(parts[-2 if final else -1], content, width - (6 if final else 1))
    return themes.png(figure)


def moves(content: Mapping[str, Any]) -> list[dict[str, Row]]:
    """For each round of a search: item -> the row of adding or removing it.

    Of several rows, as where runs of items are added: the best that was not stopped.
    """
    current, rows = set(content["start"]["blocks"]), []
    for round_ in content["rounds"]:
        options: dict[str, Row] = {}
        worth = sorted(
            round_["candidates"], key=lambda row: (row["steps"], row["mean"])
        )
        for row in worth:
            options |= dict.fromkeys(current ^ set(row["blocks"]), row)
        rows.append(options)
        current = set(round_["chosen"]) if round_["kept"] else current
    return rows


def path(content: Mapping[str, Any]) -> list[tuple[str, Row, bool]]:
    """(change, row, was it kept) of the start and of every round's choice.

    A change is the item's name after a sign, + or −.
    """
    steps, before = [("start", content["start"], True)], set(content["start"]["blocks"])
    for round_ in content["rounds"]:
        after = set(round_["chosen"])
        sign = "+" if after > before else "−"
        (row,) = [row for row in round_["candidates"] if set(row["blocks"]) == after]
        changed = [item for item in content["items"] if item in after ^ before]
        steps.append((f"{sign}{', '.join(changed)}", row, round_["kept"]))
        before = after if round_["kept"] else before
    return steps


def gains(content: Mapping[str, Any]) -> Cells:
    """(round, place of the item) -> change of the value by it, and was it stopped."""
    options, level, cells = moves(content), content["start"]["mean"], {}
    rows = [row for each in options for row in each.values()]
    early = dict(zip(map(id, rows), marks.stopped(rows), strict=True))
    for at, round_ in enumerate(content["rounds"]):
        for item, row in options[at].items():
            place = content["items"].index(item)
            cells[at, place] = row["mean"] - level, early[id(row)]
        level = round_["value"] if round_["kept"] else level
    return cells


def _rounds(figure: FigureBase, content: Mapping[str, Any], width: float) -> None:
    """A cell for each round and item; the choice of each round is outlined."""
    axes, items, steps = figure.subplots(), content["items"], path(content)[1:]
    cells, last = gains(content), len(steps) - 0.5
    size = np.abs([gain for gain, early in cells.values() if not early])
    # A few collapses must not wash out the colours of all the rest.
    limit = float(np.percentile(size, 95)) or float(size.max()) or 1.0
    scale = ScalarMappable(Normalize(-limit, limit), GAINS)
    beyond = "both" if size.max() > limit else "neither"
    note = marks.cells(figure, axes, cells, (len(steps), len(items)), scale, beyond)
    words = []
    for at, (what, row, kept) in enumerate(steps):
        columns = [items.index(item) for item in what[1:].split(", ")]
        for column in columns:
            marks.outline(axes, at, column, LIGHT.ink, "-" if kept else ":")
        column = sum(columns) / len(columns)
        look = {"marker": "o" if kept else "X", "mfc": LIGHT.paper, "mec": LIGHT.ink}
        axes.plot(column, at, ms=5 if kept else 8, mew=0.8, zorder=5, **look)
        if kept:
            axes.plot([column] * 2, [at + 0.5, last], color=LIGHT.faint, lw=2, zorder=0)
        refused = "" if kept else "  refused"
        words.append(f"{themes.cut(what, 28)}  {row['mean']:.3f}{refused}")
    verb = "adding" if steps[0][0].startswith("+") else "removing"
    heading = f"change of {content['metric']} by {verb} each item"
    heading += f"; framed: best of the round{note}"
    themes.frame(axes, heading, LIGHT, grid=False)
    axes.set_ylabel("round", **MUTED)
    marks.ticks(axes, items, width)
    marks.ticks(axes, [str(1 + at) for at in range(len(steps))], side="y")
    marks.right(axes, range(len(steps)), words)


def _path(figure: FigureBase, content: Mapping[str, Any], width: float) -> None:
    """The value after every round; one that was refused is a cross."""
    axes, steps, before = figure.subplots(), path(content), (0, content["start"])
    axes.margins(y=0.18)
    for at, (_, row, kept) in enumerate(steps):
        color, style = (LIGHT.train, "-") if kept else (LIGHT.muted, ":")
        line = [before[1]["mean"], row["mean"]]
        axes.plot([before[0], at], line, color=color, ls=style, lw=1.4)
        marks.means(axes, [at], [row], color, marker="o" if kept else "x")
        before = (at, row) if kept else before
        if kept and set(row["blocks"]) == set(content["selected"]):
            marks.ring(axes, at, row, "selected")
    themes.frame(axes, f"{content['metric']} after every round", LIGHT)
    axes.set_xlim(-0.5, len(steps) - 0.5)
    words = [what for what, *_ in steps]
    if marks.room(words) <= width:
        marks.ticks(axes, words)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.set_xlabel("round; 0 is the start", **MUTED)


def _final(figure: FigureBase, rows: Sequence[Row], metric: str) -> None:
    """The test metric of each named row, and how much of the base it trains."""
    axes, words = figure.subplots(), []
    whole = [row["trainable"] for row in rows if row["name"] == "full"]
    for at, row in enumerate(rows):
        color = LIGHT.validation if row["name"] == "selected" else LIGHT.train
        values = row["values"]
        axes.plot(values, [at] * len(values), ".", color=color, alpha=0.3, ms=6)
        look = {"marker": "o", "ms": 6, "lw": 1.6, "capsize": 3, "color": color}
        axes.errorbar(row["mean"], at, xerr=row["std"], **look)
        part = 100 * row["trainable"] / whole[0] if whole and whole[0] else None
        share = "" if part is None else f" ({part:.3g} % of full)"
        count = themes.short(row["trainable"])
        words.append(f"{row['mean']:.3f} ± {row['std']:.3f}\ntrains {count}{share}")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    themes.frame(axes, f"test {metric} of final trainings", LIGHT, grid=False)
    axes.grid(axis="x", color=LIGHT.faint, lw=0.8)
    marks.ticks(axes, [row["name"] for row in rows], side="y")
    marks.right(axes, range(len(rows)), words)
