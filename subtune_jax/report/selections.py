"""Pictures of masks: where a network would move, and how two masks differ.

They draw what `counts` counted, as PNG files of 130 pixels an inch in either theme.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from subtune_jax.report import counts, themes
from subtune_jax.report.themes import LIGHT, Theme

WIDTH = 10  # inches
Selected = Mapping[str, tuple[int, int]]  # block -> (elements selected, elements)


def shares(
    choices: Mapping[str, Selected],
    masses: Mapping[str, Mapping[str, float]],
    theme: Theme = LIGHT,
) -> bytes:
    """Of each block, input on top: the share selected, and its share of the scores.

    A stroke across the bars on the right is the block's share of all elements: a bar
    that ends there has the mean score of the whole. The axis on the left is
    logarithmic where shares differ by more than a factor of 30. The picture is 10
    inches wide and 1.3 inches plus 0.28 a block high.

    Args:
      choices: name -> `counts.selected`; one to three, of the same blocks.
      masses: name of the score -> `counts.mass`; one to three, of the same blocks.
      theme: colours.

    Raises:
      ValueError: none or four of either, or other blocks.
    """
    themes.bounded(choices, 3)
    themes.bounded(masses, 3)
    sizes = next(iter(choices.values()))
    blocks = list(sizes)
    for name, parts in (*choices.items(), *masses.items()):
        if list(parts) != blocks:
            raise ValueError(f"{name!r} has the blocks {list(parts)}; not {blocks}")
    figure = themes.canvas(WIDTH, 1.3 + 0.28 * len(blocks), theme)
    left, right = figure.subplots(1, 2, sharey=True)
    _parts(left, choices, theme)
    _bars(right, blocks, {k: [*parts.values()] for k, parts in masses.items()}, theme)
    _strokes(right, [size for _, size in sizes.values()], theme)
    themes.frame(right, "its share of the sum of scores", theme, grid=False)
    for axes, side in ((left, "left"), (right, "right")):
        themes.legend(axes.figure, axes.get_legend_handles_labels(), theme, side)
    return themes.png(figure)


def neurons(choices: Mapping[str, np.ndarray], theme: Theme = LIGHT) -> bytes:
    """How many neurons have how many selected inputs, 10 x 3.6 inches.

    Args:
      choices: name -> `counts.inputs`; one to three.
      theme: colours.

    Raises:
      ValueError: none or four choices.
    """
    themes.bounded(choices, 3)
    figure = themes.canvas(WIDTH, 3.6, theme)
    axes = figure.subplots()
    histograms = {name: counts.histogram(inputs) for name, inputs in choices.items()}
    names, wide = list(max(histograms.values(), key=len)), 0.8 / len(histograms)
    for at, (label, bins) in enumerate(histograms.items()):
        places = np.arange(len(bins)) + (at - (len(histograms) - 1) / 2) * wide
        look = {"label": label, "color": themes.series(theme)[at]}
        bars = axes.bar(places, list(bins.values()), 0.92 * wide, **look)
        texts = [f"{number:,}" if number else "" for number in bins.values()]
        axes.bar_label(bars, texts, fontsize=7, color=theme.ink, padding=1)
    themes.frame(axes, "neurons by how many of their inputs were selected", theme)
    axes.set_xticks(range(len(names)), [name.replace("-", "–") for name in names])
    axes.margins(y=0.1)
    themes.labels(axes, "inputs selected", "neurons", theme)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    themes.legend(axes.figure, axes.get_legend_handles_labels(), theme)
    return themes.png(figure)


def overlaps(
    names: Sequence[str],
    overlap: np.ndarray,
    chance: np.ndarray,
    theme: Theme = LIGHT,
) -> bytes:
    """Which part of their elements masks share, and below it the part by chance.

    The picture is 2.5 inches plus 1 a mask wide, and 1.1 inches plus 0.5 a mask
    high.

    Args:
      names: of n masks, one or more.
      overlap: `[n, n]`, in [0, 1]; see `counts.crossed`.
      chance: `[n, n]`, what random masks as large would share on average.
      theme: colours.

    Raises:
      ValueError: no names, or other shapes.
    """
    shape, shapes = (len(names), len(names)), [np.shape(overlap), np.shape(chance)]
    if not names or shapes != [shape, shape]:
        what = f"{shapes[0]} and {shapes[1]}"
        raise ValueError(f"overlaps {what}; for {len(names)} names both are {shape}")
    figure = themes.canvas(2.5 + len(names), 1.1 + 0.5 * len(names), theme)
    axes = figure.subplots()
    axes.imshow(overlap, themes.ramp(theme), Normalize(0, 1), aspect="auto")
    for row, column in np.ndindex(shape):
        value, random = overlap[row][column], chance[row][column]
        text = f"{value:.2f}" if row == column else f"{value:.2f}\nchance {random:.2f}"
        look = {"ha": "center", "va": "center", "fontsize": 8}
        color = theme.paper if value > 0.5 else theme.ink
        axes.text(column, row, text, color=color, **look)
    themes.frame(axes, "share of elements in common", theme, grid=False)
    axes.spines["bottom"].set_visible(False)
    rows, short = range(len(names)), [themes.cut(name, 24) for name in names]
    axes.set_yticks(rows, short, color=theme.ink)
    axes.set_xticks(rows, [s.replace(" ", "\n", 1) for s in short], color=theme.ink)
    return themes.png(figure)


def _parts(axes: Axes, choices: Mapping[str, Selected], theme: Theme) -> None:
    parts = {k: [n / max(of, 1) for n, of in c.values()] for k, c in choices.items()}
    some = [share for series in parts.values() for share in series if share]
    log = bool(some) and max(some) > 30 * min(some)
    blocks = list(next(iter(choices.values())))
    _bars(axes, blocks, parts, theme, min(some) / 2 if log else 0.0)
    words = "share of its elements selected" + (", log scale" if log else "")
    themes.frame(axes, words, theme, grid=False)


def _strokes(axes: Axes, sizes: Sequence[int], theme: Theme) -> None:
    rows, places = np.arange(len(sizes)), np.array(sizes) / max(sum(sizes), 1)
    look = {"color": theme.ink, "lw": 1.3, "label": "its share of all elements"}
    axes.vlines(places, rows - 0.42, rows + 0.42, **look)


def _bars(
    axes: Axes,
    blocks: Sequence[str],
    series: Mapping[str, Sequence[float]],
    theme: Theme,
    start: float = 0.0,
) -> None:
    """Bars by block and series; above 0, `start` is where a logarithmic axis begins."""
    high = 0.8 / len(series)
    for at, (label, values) in enumerate(series.items()):
        places = np.arange(len(blocks)) + (at - (len(series) - 1) / 2) * high
        widths = np.maximum(np.asarray(values) - start, 0)
        look = {"left": start, "color": themes.series(theme)[at], "label": label}
        axes.barh(places, widths, 0.92 * high, **look)
    if start:
        axes.set_xscale("log")
        axes.set_xlim(left=start)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_ylim(len(blocks) - 0.4, -0.6)
    short = [themes.cut(block, 24) for block in blocks]
    axes.set_yticks(range(len(blocks)), short, color=theme.ink)
