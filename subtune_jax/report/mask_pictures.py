"""Pictures of masks: an image, its true mask and the guess, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import FigureBase

from subtune_jax.data import dense
from subtune_jax.report import themes
from subtune_jax.report.themes import Theme

MOST, COLUMNS = 6, 2  # images, and images side by side
SHARE = 0.6  # of a class's colour over the image


def worst(
    figure: FigureBase,
    examples: Sequence[Mapping[str, Any]],
    classes: int,
    metric: str,
    theme: Theme = themes.LIGHT,
) -> None:
    """Up to six images, with the true mask and the guess laid over each.

    Class 0 is clear, ignored pixels are grey.

    Args:
      figure: to draw into.
      examples: `{"image", "truth", "guess", "metric"}`; see `report.write`.
      classes: C.
      metric: its name.
      theme: colours.
    """
    examples = list(examples)[:MOST]
    rows = -(-len(examples) // COLUMNS)
    grid = figure.subplots(rows, 3 * COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, example in enumerate(examples):
        row, column = number // COLUMNS, 3 * (number % COLUMNS)
        image = np.asarray(example["image"], np.float32) / 255
        shown = image, *(paint(image, example[k], classes) for k in ("truth", "guess"))
        words = f"{metric} {example['metric']:.2f}", "truth", "guess"
        for axes, pixels, text in zip(grid[row, column:], shown, words, strict=False):
            axes.imshow(pixels, interpolation="nearest")
            color = theme.validation if pixels is image else theme.muted
            axes.set_title(text, fontsize=9, color=color, pad=3)
    figure.suptitle(
        f"test images of the lowest {metric}", x=0.01, ha="left", **themes.title(theme)
    )


def paint(image: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """`image` `[H, W, 3]` in [0, 1] under the colours of `mask` `[H, W]`."""
    colours = np.zeros((dense.IGNORED + 1, 3), np.float32)
    if classes > 2:
        colours[1:classes] = matplotlib.colormaps["turbo"](
            np.linspace(0.1, 0.9, classes - 1)
        )[:, :3]
    else:
        colours[1] = to_rgb("#2fd0a8")
    colours[dense.IGNORED] = to_rgb("#808080")
    share = np.where(mask == 0, 0, SHARE)[..., None]
    return (1 - share) * image + share * colours[mask]
