"""Pictures of a dynamic mask: where it is, how much it changes, where it has been.

A run is a dict from steps, ascending, to masks: path -> booleans of the leaf's shape,
the same leaves in every step. Counting and drawing run on the host; pictures are PNG
files of 130 pixels an inch in either theme.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from subtune_jax.core.contracts import Mask
from subtune_jax.report import counts, themes
from subtune_jax.report.themes import LIGHT, Theme
from subtune_jax.selection import stability

WIDTH = 10  # inches
MOST = 3  # runs in one picture
CORNER = 128, 256  # of a kernel that is drawn: more would be finer than the dots
Run = Mapping[int, Mask]


def shares(run: Run, blocks: Sequence[str]) -> dict[str, list[float]]:
    """Block -> the share in [0, 1] of its elements that is selected in each step.

    Args:
      run: as above.
      blocks: from input to output; those without arrays are left out.

    Raises:
      ValueError: there are no steps, or an array is in none of `blocks`.
    """
    _check({"run": run}, 1)
    series: dict[str, list[float]] = {}
    for marks in run.values():
        for block, (part, whole) in counts.selected(marks, marks, blocks).items():
            series.setdefault(block, []).append(part / max(whole, 1))
    return series


def jaccards(run: Run, before: bool) -> dict[int, tuple[float, float]]:
    """Step -> how much two masks agree, and how much random ones would on average.

    The former is the Jaccard index, elements in both by elements in one or both. The
    latter is that of random masks with as many elements of each array, of the mean
    number of elements in both (`stability.overlap`).

    Args:
      run: as above.
      before: whether a step's mask is compared with the one before it; else with the
        first one. The first step has no entry.
    """
    steps, indices = list(run), {}
    for at, step in enumerate(steps[1:]):
        other, own = run[steps[at if before else 0]], run[step]
        pair = stability.overlap(other, own)
        sizes = [sum(int(flags.sum()) for flags in m.values()) for m in (other, own)]
        by_chance = pair["expected_by_chance"] * max(sizes)
        either = sum(sizes) - by_chance
        indices[step] = pair["jaccard"], by_chance / either if either else 1.0
    return indices


def times(run: Run, path: str) -> np.ndarray:
    """How many of the masks selected each element of a leaf, int of its shape.

    Raises:
      ValueError: there are no steps, or no leaf of that path.
    """
    _check({"run": run}, 1)
    first = next(iter(run.values()))
    if path not in first:
        raise ValueError(f"no leaf {path!r} in the masks; there are {', '.join(first)}")
    return np.sum([marks[path] for marks in run.values()], axis=0)


def by_block(
    runs: Mapping[str, Run], blocks: Sequence[str], theme: Theme = LIGHT
) -> bytes:
    """Of each block, input on top, the share that is selected: a column is a step.

    One panel a run, each with a bar of its colours, from 0 to the largest share; blocks
    without masks in a run are left blank. The picture is 10 inches wide and 1.4 inches
    plus 0.22 a block high.

    Args:
      runs: name -> run; one to three.
      blocks: from input to output; those without masks in all runs are left out.
      theme: colours.

    Raises:
      ValueError: none or four runs, a run without steps, or an array in none of
        `blocks`.
    """
    _check(runs, 1)
    series = {name: shares(run, blocks) for name, run in runs.items()}
    names = [block for block in blocks if any(block in own for own in series.values())]
    figure = themes.canvas(WIDTH, 1.4 + 0.22 * len(names), theme)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, (name, own) in zip(panels, series.items(), strict=True):
        blank = [np.nan] * len(runs[name])
        image = np.array([own.get(block, blank) for block in names])
        _map(axes, image, theme, "share selected")
        themes.frame(axes, themes.cut(name, 24), theme, grid=False)
        _steps(axes, list(runs[name]), theme)
    short = [themes.cut(name, 24) for name in names]
    panels[0].set_yticks(range(len(names)), short, color=theme.ink)
    return themes.png(figure)


def overlaps(runs: Mapping[str, Run], theme: Theme = LIGHT) -> bytes:
    """How much masks agree with the one before and with the first, 10 x 3.4 inches.

    Lines are Jaccard indices, dotted ones those of random masks as large.

    Args:
      runs: name -> run; one to three, of two steps or more.
      theme: colours.

    Raises:
      ValueError: none or four runs, or a run of less than two steps.
    """
    _check(runs, 2)
    figure = themes.canvas(WIDTH, 3.4, theme)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, before in zip(panels, (True, False), strict=True):
        for run, color in zip(runs.values(), themes.series(theme), strict=False):
            indices = jaccards(run, before)
            own, chance = np.array(list(indices.values())).T
            look: dict[str, Any] = {"color": color, "lw": 1.8, "marker": "o", "ms": 3.5}
            axes.plot(list(indices), own, **look)
            axes.plot(list(indices), chance, color=color, lw=1.2, ls=(0, (1, 2)))
        other = "the one before" if before else "the first"
        themes.frame(axes, f"Jaccard index of a mask and {other}", theme)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("step", color=theme.muted, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    lines = [*panels[0].lines[::2], panels[0].lines[1]]
    names = [*(themes.cut(name, 24) for name in runs), "dotted: random masks as large"]
    themes.legend(figure, (lines, names), theme)
    return themes.png(figure)


def often(runs: Mapping[str, Run], path: str, theme: Theme = LIGHT) -> bytes:
    """How often each element of one kernel was selected, as a map and as a histogram.

    A map's row is an input, a column a neuron; of a large kernel it has the first 128
    inputs and 256 neurons, the histogram all. In the histogram dots are what masks of
    the same sizes would give if each were drawn anew: elements that a method comes
    back to, or never comes to, rise above them at both ends. Its axis is logarithmic.
    The picture is 10 inches wide and 0.3 inches plus 2.7 a run high.

    Args:
      runs: name -> run; one to three.
      path: of the kernel, `[..., in, out]`.
      theme: colours.

    Raises:
      ValueError: none or four runs, a run without steps, no such leaf, or a vector.
    """
    _check(runs, 1)
    figure = themes.canvas(WIDTH, 0.3 + 2.7 * len(runs), theme)
    grid = figure.subplots(len(runs), 2, squeeze=False)
    for (left, right), (name, run) in zip(grid, runs.items(), strict=True):
        hits = times(run, path)
        if hits.ndim < 2:
            raise ValueError(f"{path!r} is {hits.shape}; a kernel is [..., in, out]")
        image, short = hits.reshape(-1, hits.shape[-1]), themes.cut(name, 20)
        shown = image[: CORNER[0], : CORNER[1]]
        _map(left, shown, theme, f"masks, of {len(run)}", top=len(run))
        themes.frame(left, f"{short}: {themes.cut(path, 28)}", theme, grid=False)
        left.set_xlabel("neuron", color=theme.muted, fontsize=9)
        left.set_ylabel("input", color=theme.muted, fontsize=9)
        left.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _histogram(right, hits, [m[path].mean() for m in run.values()], theme)
        themes.frame(right, f"{short}: elements by how often selected", theme)
        right.set_xlabel("masks that selected it", color=theme.muted, fontsize=9)
    handles, labels = grid[0][1].get_legend_handles_labels()
    themes.legend(figure, (handles[::-1], labels[::-1]), theme)
    return themes.png(figure)


def chance(rates: Sequence[float]) -> np.ndarray:
    """Probabilities that 0, 1, ... n of independent events happen, `[n + 1]`.

    >>> chance([0.5, 0.5]).tolist()
    [0.25, 0.5, 0.25]

    Args:
      rates: n probabilities, one an event.
    """
    odds = np.ones(1)
    for rate in rates:
        odds = np.convolve(odds, [1 - rate, rate])
    return odds


def _check(runs: Mapping[str, Run], least: int) -> None:
    if not 1 <= len(runs) <= MOST:
        names = ", ".join(runs) or "no runs"
        raise ValueError(f"{names} to draw; there must be 1 to {MOST}")
    for name, run in runs.items():
        if len(run) < least:
            raise ValueError(f"{name!r} has {len(run)} steps; {least} are the least")


def _map(
    axes: Axes, image: np.ndarray, theme: Theme, label: str, top: float = 0.0
) -> None:
    """An image from 0 to `top`, or to its largest value, with a bar of its colours."""
    scale = Normalize(0, top or np.nanmax(image) or 1.0)
    shown = axes.imshow(image, themes.ramp(theme), scale, aspect="auto")
    figure: Any = axes.figure
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelsize=8, length=0)
    bar.set_label(label, color=theme.muted, fontsize=8)
    bar.locator = MaxNLocator(4, integer=bool(top))
    bar.formatter = FuncFormatter(lambda x, _: f"{x:g}")
    bar.update_ticks()


def _steps(axes: Axes, steps: Sequence[int], theme: Theme) -> None:
    """Names some of the columns by their steps."""
    every = math.ceil(len(steps) / 8)
    places = range(0, len(steps), every)
    axes.set_xticks(places, [str(steps[place]) for place in places])
    axes.set_xlabel("step", color=theme.muted, fontsize=9)


def _histogram(
    axes: Axes, hits: np.ndarray, rates: Sequence[float], theme: Theme
) -> None:
    sizes = np.bincount(hits.ravel(), minlength=len(rates) + 1)
    places, expected = np.arange(len(sizes)), chance(rates) * hits.size
    axes.bar(places, sizes, 0.8, color=theme.train, label="elements")
    shown = np.where(expected >= 0.5, expected, np.nan)
    look: dict[str, Any] = {"color": theme.validation, "ls": "none", "marker": "o"}
    axes.plot(places, shown, ms=5, label="if each mask were drawn anew", **look)
    axes.set_yscale("log")
    axes.set_ylim(0.5, 3 * max(sizes.max(), expected.max()))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
