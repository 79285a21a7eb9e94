"""Pictures of one kernel: its scores, and the elements selected of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from subtune_jax.report import themes
from subtune_jax.report.themes import LIGHT, Theme

WIDTH = 10  # inches
LARGEST = 1e4  # times the smallest score that has a colour of its own


def kernel(
    scores: np.ndarray,
    masks: Mapping[str, np.ndarray],
    name: str,
    theme: Theme = LIGHT,
) -> bytes:
    """One kernel's scores on a log scale, a row an input, a column a neuron.

    Scores below a ten-thousandth of the largest are drawn as that. The picture is 10
    inches wide and 3 to 8 high: 1.8 inches plus 0.07 an input.

    Args:
      scores: `[in, out]` or `[h, w, in, out]`, 0 or more; the latter is read as
        `[h * w * in, out]`.
      masks: name -> mask of that shape, to be marked; one or two.
      name: of the kernel, for the heading.
      theme: colours.

    Raises:
      ValueError: no kernel, none or three masks, or a mask of another shape.
    """
    themes.bounded(masks, 2)
    shape = np.shape(scores)
    if len(shape) < 2 or not np.size(scores):
        raise ValueError(f"an array {shape}; a kernel is [..., in, out]")
    image = np.asarray(scores, float).reshape(-1, shape[-1])
    top, height = image.max() or 1.0, min(max(1.8 + 0.07 * len(image), 3.0), 8.0)
    figure = themes.canvas(WIDTH, height, theme)
    axes = figure.subplots()
    _image(axes, image, top, theme)
    cell = 72 * min(8 / image.shape[1], (height - 1.2) / image.shape[0])  # points
    for at, (label, flags) in enumerate(masks.items()):
        if np.shape(flags) != shape:
            raise ValueError(f"mask {label!r} is {np.shape(flags)}; not {shape}")
        rows, columns = np.nonzero(np.asarray(flags).reshape(image.shape))
        _marks(axes, rows, columns, f"{label}: {len(rows):,}", at, cell, theme)
    themes.frame(axes, f"scores of {themes.cut(name, 60)}", theme, grid=False)
    themes.labels(axes, "neuron", "input", theme)
    themes.legend(axes.figure, axes.get_legend_handles_labels(), theme)
    return themes.png(figure)


def _image(axes: Axes, image: np.ndarray, top: float, theme: Theme) -> None:
    """The scores and the bar of their colours."""
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
    scale = LogNorm(top / LARGEST, top)
    shown = axes.imshow(
        np.maximum(image, top / LARGEST), themes.ramp(theme), scale, **look
    )
    bar: Any = axes.figure.colorbar(shown, ax=axes, pad=0.01, extend="min")
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", colors=theme.muted, labelsize=8, length=0)


def _marks(
    axes: Axes,
    rows: np.ndarray,
    columns: np.ndarray,
    label: str,
    number: int,
    cell: float,
    theme: Theme,
) -> None:
    """Rings around cells, or crosses in them for the second mask."""
    size = max(cell * (1.0, 0.6)[number], 2.5)
    color, marker = ((theme.validation, "o"), (theme.ink, "x"))[number]
    look: dict[str, Any] = {"marker": marker, "ms": size, "mfc": "none", "mew": 1.1}
    axes.plot(columns, rows, ls="none", color=color, label=label, **look)
