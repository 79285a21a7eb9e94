"""Texts that a network got wrong: as a picture, and as a table of the page."""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import FigureBase

from subtune_jax.report import themes
from subtune_jax.report.themes import Theme

MOST = 8
LINE, LINES = 62, 3  # letters of a line, and lines of a text, in a picture
LETTERS = 400  # of a text, in the page


def draw(
    figure: FigureBase,
    examples: Sequence[Mapping[str, Any]],
    heading: str,
    theme: Theme = themes.LIGHT,
) -> None:
    """Up to eight texts, each under its guess and its truth.

    Args:
      figure: to draw into.
      examples: `{"text", "truth", "guess", "probability"}`, maybe `"pair"`; see
        `report.write`.
      heading: what they are.
      theme: colours.
    """
    examples = list(examples)[:MOST]
    if not examples:
        themes.say(figure, "no mistakes to show", theme)
        return
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(LINES * MOST + MOST, 0))
    for number, example in enumerate(examples):
        top = number * (LINES + 1)
        axes.text(
            0, top, _verdict(example), va="top", fontsize=8, color=theme.validation
        )
        axes.text(
            0, top + 1, _lines(example), va="top", fontsize=7, color=theme.ink,
            linespacing=1.1,
        )  # fmt: skip
    figure.suptitle(heading, x=0.01, ha="left", **themes.title(theme))


def table(examples: Sequence[Mapping[str, Any]], heading: str) -> str:
    """The same as HTML; whatever comes from outside is escaped."""
    rows = "".join(
        f"<tr><td>{escape(_cut(_whole(example), LETTERS))}"
        f'<div class="bad">{escape(_judged(example))}</div></td></tr>'
        for example in list(examples)[:MOST]
    )
    rows = rows or "<tr><td>no mistakes to show</td></tr>"
    title = f"<figcaption>{escape(heading)}</figcaption>"
    return f'<figure>{title}<table class="texts">{rows}</table></figure>'


def _judged(example: Mapping[str, Any]) -> str:
    truth, guess = example["truth"], example["guess"]
    odds = example["probability"]
    return f"guess {guess}{'' if odds is None else f' ({odds:.2f})'}, truth {truth}"


def _verdict(example: Mapping[str, Any]) -> str:
    return themes.cut(_judged(example), LINE)


def _lines(example: Mapping[str, Any]) -> str:
    lines = textwrap.wrap(_whole(example), LINE) or ["(an empty text)"]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], _cut(" ".join(lines[LINES - 1 :]), LINE)]
    return "\n".join(themes.cut(line, LINE) for line in lines)


def _whole(example: Mapping[str, Any]) -> str:
    """Both texts of a pair in one line, white space aside."""
    parts = [" ".join(example[k].split()) for k in ("text", "pair") if k in example]
    return " ‖ ".join(parts)


def _cut(text: str, length: int) -> str:
    """The beginning of `text`, in at most `length` letters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
