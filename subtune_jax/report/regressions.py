"""The picture of a regression: what was predicted against what is true."""

import numpy as np
from matplotlib.figure import FigureBase

from subtune_jax.report import themes
from subtune_jax.report.themes import Theme

CLEAR = 200  # points up to which each is seen by itself


def pairs(
    figure: FigureBase,
    points: np.ndarray,
    what: str,
    theme: Theme = themes.LIGHT,
) -> None:
    """A point for each example; on the dashed line predictions are true.

    Args:
      figure: to draw into.
      points: `[N, 2]`, the truth and the prediction of each example.
      what: name of what is measured.
      theme: colours.
    """
    points = np.asarray(points, float)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        themes.say(figure, "nothing was predicted", theme)
        return
    axes = figure.subplots()
    ends = points.min(), points.max()
    room = 0.05 * (ends[1] - ends[0]) or 1.0
    span = ends[0] - room, ends[1] + room
    axes.plot(span, span, color=theme.muted, lw=1, ls=(0, (4, 3)))
    alpha = max(0.1, min(0.7, CLEAR / len(points)))
    axes.scatter(*points.T, s=14, color=theme.train, alpha=alpha, linewidths=0)
    axes.set(xlim=span, ylim=span)
    axes.set_aspect("equal")
    themes.frame(axes, f"{themes.cut(what, 24)}: predicted against true", theme)
    axes.set_xlabel("true", color=theme.muted, fontsize=9)
    axes.set_ylabel("predicted", color=theme.muted, fontsize=9)
