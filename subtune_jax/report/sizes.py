"""The picture of sizes of training data: how good, and how many blocks selected."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from subtune_jax.report import marks, themes
from subtune_jax.report.marks import MUTED, Row
from subtune_jax.report.themes import LIGHT


def sizes(rows: Sequence[Row], metric: str = "accuracy") -> bytes:
    """The metric against the number of training examples, one line a name.

    Below it, the number of blocks of the rows named "selected".

    Args:
      rows: `{"train_examples", "name", "mean", "std", "blocks"}` each; `blocks` are
        names or their number. With several `task` or `network`, each has its lines.
      metric: name of what `mean` is.
    """
    if not rows:
        return marks.nothing()
    lines = by_size(rows)
    selected = {k: line for k, line in lines.items() if line[0]["name"] == "selected"}
    figure = themes.canvas(6.4, 5.2 if selected else 3.8)
    ratios = [2.6, 1] if selected else [1]
    panels: Any = figure.subplots(
        len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False
    )[:, 0]
    panels[0].margins(y=0.08)
    looks = {label: marks.style(number) for number, label in enumerate(lines)}
    for label, line in lines.items():
        x, (color, marker) = [row["train_examples"] for row in line], looks[label]
        marks.means(panels[0], x, line, color, marker=marker)
    ends = [line[-1]["mean"] for line in lines.values()]
    words = [themes.cut(label, 30) for label in lines]
    colors = [color for color, _ in looks.values()]
    marks.right(panels[0], ends, words, colors, gap=0.055)
    themes.frame(panels[0], f"{metric} against training examples", LIGHT)
    for label, line in selected.items():
        _counts(panels[1], line, *looks[label])
    ticks = thinned(sorted({row["train_examples"] for row in rows}))
    panels[-1].set_xscale("log")
    panels[-1].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panels[-1].minorticks_off()
    panels[-1].set_xlabel("training examples", **MUTED)
    return themes.png(figure)


def by_size(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Label -> the rows of one line, fewest examples first."""
    places = {(row.get("task"), row.get("network")) for row in rows}
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["train_examples"]):
        where = [row["task"], row["network"]] if len(places) > 1 else []
        lines.setdefault(" ".join([row["name"], *filter(None, where)]), []).append(row)
    first = [row["name"] for row in rows]
    return dict(sorted(lines.items(), key=lambda item: first.index(item[1][0]["name"])))


def thinned(numbers: Sequence[int], apart: float = 1.3) -> list[int]:
    """Some of the rising `numbers`, the last among them, a factor `apart` or more.

    >>> thinned([100, 110, 200, 400])
    [110, 200, 400]
    """
    kept = [numbers[-1]]
    for number in reversed(numbers[:-1]):
        if number * apart <= kept[-1]:
            kept.append(number)
    return kept[::-1]


def _counts(axes: Axes, rows: Sequence[Row], color: str, marker: str) -> None:
    blocks = [row["blocks"] for row in rows]
    counts = [b if isinstance(b, int) else len(b) for b in blocks]
    x = [row["train_examples"] for row in rows]
    axes.plot(x, counts, color=color, marker=marker, ms=5, lw=1.4)
    axes.set_ylim(0, max(1.2 * max(counts), 1, axes.get_ylim()[1]))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    themes.frame(axes, "selected blocks", LIGHT)
