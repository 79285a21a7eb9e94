"""What all pictures share: colours, frames, type sizes, and writing PNGs.

Figures are made through matplotlib's objects; nothing touches pyplot's state.
"""

import functools
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase


class Theme(NamedTuple):
    """Colours of a picture."""

    paper: str
    ink: str
    muted: str
    faint: str
    train: str
    validation: str


LIGHT = Theme("#ffffff", "#1c2330", "#667085", "#e6e9ef", "#2f6fd0", "#d9662b")
DARK = Theme("#14171d", "#e7eaf0", "#98a2b3", "#2b313c", "#79aaf2", "#f0a072")


def canvas(width: float, height: float, theme: Theme = LIGHT) -> Figure:
    """An empty figure of `width` x `height` inches that lays itself out."""
    figure = Figure((width, height), dpi=130, layout="constrained")
    figure.set_facecolor(theme.paper)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return file.getvalue()


def frame(axes: Axes, heading: str, theme: Theme, grid: bool = True) -> None:
    """Dresses `axes`: title on the left, a bottom line, a grid across if asked."""
    axes.set_facecolor(theme.paper)
    axes.set_title(heading, loc="left", **title(theme))
    axes.tick_params(which="both", colors=theme.muted, labelsize=8, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.faint)
    if grid:
        axes.grid(axis="y", color=theme.faint, lw=0.8)
        axes.set_axisbelow(True)


def title(theme: Theme) -> dict[str, Any]:
    """Text properties of a title."""
    return {"fontsize": 10, "color": theme.ink, "weight": "bold"}


def series(theme: Theme) -> tuple[str, str, str]:
    """Colours of the first, the second and the third series."""
    return theme.train, theme.validation, theme.muted


def ramp(theme: Theme) -> LinearSegmentedColormap:
    """Colours of shares, from nothing on."""
    return LinearSegmentedColormap.from_list("ramp", [theme.faint, theme.train])


def labels(axes: Axes, x: str, y: str, theme: Theme) -> None:
    """Names both axes."""
    axes.set_xlabel(x, color=theme.muted, fontsize=9)
    axes.set_ylabel(y, color=theme.muted, fontsize=9)


def legend(figure: Any, entries: Any, theme: Theme, side: str = "left") -> None:
    """A legend below the panels, on the `side`; `entries` are (handles, names)."""
    figure.legend(
        *entries, loc=f"outside lower {side}", ncols=4, fontsize=8, frameon=False,
        labelcolor=theme.ink,
    )  # fmt: skip


def bounded(series: Mapping[str, Any], most: int) -> None:
    """Refuses, by ValueError, to draw nothing or more than `most` series."""
    if not 1 <= len(series) <= most:
        names = ", ".join(series) or "nothing"
        raise ValueError(f"{names} to draw; there must be 1 to {most}")


def say(figure: FigureBase, text: str, theme: Theme) -> None:
    """Writes `text` in the middle of a panel that has nothing to show."""
    figure.text(0.5, 0.5, text, ha="center", va="center", color=theme.muted)


def font(count: int, largest: float, room: int = 20) -> float:
    """Type size for `count` labels where `room` fit at the `largest` size."""
    return max(3.5, min(largest, largest * room / max(count, 1)))


def cut(text: Any, length: int) -> str:
    """`text` for a picture, in at most `length` letters, the middle left out.

    >>> cut("class number 12", 10)
    'class…r 12'
    """
    text, half = str(text), length // 2
    if len(text) > length:
        text = f"{text[:half]}…{text[half - length + 1 :]}"
    # A letter that the type face lacks would be a warning, and a box in any case.
    text = "".join(x if x == "\n" or ord(x) in _letters() else "□" for x in text)
    return text.replace("$", r"\$")  # matplotlib would read $...$ as mathematics


@functools.cache
def _letters() -> frozenset[int]:
    """Numbers of the letters that pictures can show."""
    face = font_manager.findfont(font_manager.FontProperties())
    return frozenset(font_manager.get_font(face).get_charmap())


def short(count: int) -> str:
    """A count in three digits.

    >>> short(1234567)
    '1.23M'
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
