"""The report of a run: `report.html`, which needs no other file, and `report.png`."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax.core import process
from subtune_jax.report import (
    mask_pictures,
    pictures,
    regressions,
    text_mistakes,
    themes,
)
from subtune_jax.report import page as report_page
from subtune_jax.report.page import Panel
from subtune_jax.report.themes import LIGHT


def write(
    workdir: str | Path,
    result: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    shares: Mapping[str, tuple[int, int]],
    confusion: np.ndarray,
    classes: Sequence[str],
    mistakes: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]] = (),
) -> tuple[Path, Path]:
    """The paths of `report.html` and `report.png`, written into `workdir`.

    Args:
      workdir: an existing folder.
      result: of `result.json`; `linear_probe: {"test"}` is compared when it is there.
      records: of `metrics.jsonl`; may be empty.
      shares: block -> (parameters selected, parameters), input to output.
      confusion: `[C, C]` counts on the test split, rows are the truth; of a regression
        floats `[N, 2]`, truth and prediction of each example.
      classes: C names.
      mistakes: `{"image": uint8 [H, W, 3], "truth", "guess", "probability"}` each; up
        to eight are shown. Of texts `"text"`, and of pairs `"pair"`, for `"image"`;
        of a regression `probability` is None.
      worst: of a dense task, shown instead: `{"image": uint8 [H, W, 3], "truth",
        "guess": uint8 [H, W], "metric"}` each; up to six.
    """
    probe = result.get("linear_probe") or {}
    metric = result["metrics"]["name"]
    panels = [
        Panel(
            lambda f, t: pictures.curve(f, records, metric, probe.get("validation"), t),
            f"Training loss and validation {metric} over steps",
            4.2,
        ),
        Panel(
            lambda f, t: pictures.blocks(f, shares, t),
            "Trained share of each block",
            max(4.2, 1 + 0.19 * len(shares)),
        ),
        _answers(confusion, classes),
        _examples(mistakes, worst, len(classes), metric),
    ]
    page, overview = Path(workdir) / "report.html", Path(workdir) / "report.png"
    overview.write_bytes(_overview(panels, result))
    wrong = _confusions(confusion, classes)
    html = report_page.html(panels, result, headline(result), wrong)
    page.write_text(html, "utf-8")
    return page, overview


def _answers(confusion: np.ndarray, classes: Sequence[str]) -> Panel:
    if _numbers(confusion):
        return Panel(
            lambda f, t: regressions.pairs(f, confusion, classes[0], t),
            "Predictions on the test split against the truth",
            5.6,
        )
    return Panel(
        lambda f, t: pictures.confusion(f, confusion, classes, t),
        "Confusion matrix of the test split",
        5.6,
    )


def _numbers(confusion: np.ndarray) -> bool:
    """Are these the answers of a regression?"""
    return np.issubdtype(np.asarray(confusion).dtype, np.floating)


def _examples(
    mistakes: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]],
    classes: int,
    metric: str,
) -> Panel:
    if worst:
        return Panel(
            lambda f, t: mask_pictures.worst(f, worst, classes, metric, t),
            f"Images of the lowest {metric}: image, truth and guess",
            5.6,
        )
    of_texts = any("text" in example for example in mistakes)
    draw = text_mistakes.draw if of_texts else pictures.mistakes
    heading = "mistakes on the test split (probability of the guess)"
    what = "that were classified wrongly"
    if any(example["probability"] is None for example in mistakes):
        heading, what = "largest errors on the test split", "of the largest errors"
    return Panel(
        lambda f, t: draw(f, mistakes, heading, t),
        f"{'Texts' if of_texts else 'Images'} {what}",
        4.2,
        text_mistakes.table(mistakes, heading) if of_texts else None,
    )


def headline(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What matters most: (value, what it is, "good", "bad" or "") in that order."""
    name, test = result["metrics"]["name"], result["metrics"].get("test")
    probe = (result.get("linear_probe") or {}).get("test")
    what, mood = f"test {name}", ""
    if test is not None and probe is not None:
        what += f"; {test - probe:+.3f} compared with the linear probe's {probe:.3f}"
        mood = "good" if test > probe else "bad" if test < probe else ""
    constant = result["metrics"].get("constant")
    if constant is not None and math.isfinite(constant):
        what += f"; a constant answer reaches {constant:.3f}"
    for other, value in result["metrics"].get("also", {}).items():
        what += f"; {other} {value:.3f}"
    counts = result.get("trainable", {})
    trained = counts.get("selected", 0) + counts.get("extras", 0)
    size = result.get("cost", {}).get("delta_bytes")
    frozen = result.get("frozen_unchanged")
    return [
        ("–" if test is None else f"{test:.3f}", what, mood),
        (
            f"{100 * counts.get('fraction', 0):.3g} %",
            f"of the base trained: {trained:,} of {counts.get('base', 0):,} elements",
            "",
        ),
        ("–" if size is None else process.size(size), "delta on disk", ""),
        (
            "not checked" if frozen is None else "unchanged" if frozen else "changed",
            "every frozen element, compared with the base bit for bit",
            "" if frozen is None else "good" if frozen else "bad",
        ),
    ]


def _overview(panels: Sequence[Panel], result: Mapping[str, Any]) -> bytes:
    figure = themes.canvas(13, 10)
    title = report_page.name(result)
    line = " · ".join(f"{value} {what}" for value, what, _ in headline(result)[:3])
    lines = "\n".join([title, *textwrap.wrap(line, 130)])
    figure.suptitle(
        themes.cut(lines, 500), x=0.01, ha="left", fontsize=13, color=LIGHT.ink
    )
    grid: Any = figure.subfigures(2, 2, wspace=0.04, hspace=0.04)
    for part, panel in zip(grid.reshape(-1), panels, strict=True):
        part.set_facecolor(LIGHT.paper)
        panel.draw(part, LIGHT)
    return themes.png(figure)


def _confusions(matrix: np.ndarray, classes: Sequence[str]) -> list[tuple]:
    """The five largest off-diagonal counts: (truth, guess, count)."""
    if _numbers(matrix):
        return []
    wrong = np.array(matrix).reshape(len(classes), len(classes))
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:5]
    places = [np.unravel_index(at, wrong.shape) for at in order]
    return [
        (classes[a], classes[b], int(wrong[a, b])) for a, b in places if wrong[a, b]
    ]
