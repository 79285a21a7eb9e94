"""The page of a report: one HTML file with its pictures inside, light and dark."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.figure import FigureBase

from subtune_jax.report import themes
from subtune_jax.report.themes import DARK, LIGHT, Theme

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f5f6f9; --ink: #1c2330;
  --muted: #667085; --line: #e6e9ef; --good: #1a7f4b; --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171d; --card: #1d222b;
  --ink: #e7eaf0; --muted: #98a2b3; --line: #2b313c; --good: #5fc992; --bad: #f08a7e; }}
body { background: var(--paper); color: var(--ink); margin: 2rem auto; padding: 0 1rem;
  max-width: 66rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 } p.under { color: var(--muted); margin: 0 0 1.2rem }
.cards { display: grid; gap: .8rem; margin-bottom: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)) }
.card { background: var(--card); border-radius: .6rem; padding: .8rem 1rem }
.card b { display: block; font-size: 1.7rem; line-height: 1.3 }
.card span, figcaption { color: var(--muted); font-size: .9rem }
.good { color: var(--good) } .bad { color: var(--bad) }
.panels { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)) }
figure { margin: 0 } img { max-width: 100%; height: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0 }
td:last-child { text-align: right; font-variant-numeric: tabular-nums }
table.texts td { text-align: left; overflow-wrap: anywhere }
pre { background: var(--card); padding: 1rem; overflow: auto; font-size: .85rem }
"""

COST = {
    "train_steps": "training steps",
    "selection_seconds": "selection, seconds",
    "train_seconds": "training, seconds",
    "data_wait_seconds": "waiting for data, seconds",
    "step_flops": "one training step, floating-point operations",
    "optimizer_bytes": "optimiser state, bytes",
    "delta_bytes": "delta on disk, bytes",
}
TRAINABLE = {
    "selected": "elements selected by the method",
    "extras": "biases and norms trained along with them",
    "head": "elements of the head",
    "base": "elements of the base, without a head",
    "fraction": "trained share of the base",
}


class Panel(NamedTuple):
    """One picture: what is drawn, its words for those who cannot see it, its size.

    Attributes:
      draw: into a (sub)figure.
      words: what it shows.
      height: in inches.
      markup: HTML that the page has instead of the picture; None for the picture.
    """

    draw: Callable[[FigureBase, Theme], None]
    words: str
    height: float
    markup: str | None = None


def html(
    panels: Sequence[Panel],
    result: Mapping[str, Any],
    headline: Sequence[tuple[str, str, str]],
    confusions: Sequence[tuple[str, str, int]],
) -> str:
    """The page as text; whatever comes from outside is escaped.

    Args:
      panels: pictures, in order.
      result: of `result.json`.
      headline: (value, what it is, "good", "bad" or "") of each card.
      confusions: (truth, guess, count), the most frequent first.
    """
    title = name(result)
    under = f"seed {result.get('seed', '–')}; devices: {result.get('devices', '–')}"
    cards = "".join(
        f'<div class="card"><b class="{mood}">{escape(value)}</b>'
        f"<span>{escape(what)}</span></div>"
        for value, what, mood in headline
    )
    pairs = [(f"{a} taken for {b}", count) for a, b, count in confusions]
    rest = {key: result.get(key) for key in ("config", "versions", "base_fingerprint")}
    details = escape(json.dumps(rest, indent=2, default=str))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1><p class="under">task / backbone / method; {escape(under)}</p>
<div class="cards">{cards}</div>
<div class="panels">{"".join(map(_figure, panels))}</div>
{_table("What it cost", _named(result.get("cost", {}), COST))}
{_table("What was trained", _named(result.get("trainable", {}), TRAINABLE))}
{_table("Most frequent confusions", pairs)}
<details><summary>Configuration and versions</summary><pre>{details}</pre></details>
</body></html>
"""


def _figure(panel: Panel) -> str:
    if panel.markup is not None:
        return panel.markup
    sources = []
    for theme in (DARK, LIGHT):
        figure = themes.canvas(6.4, panel.height, theme)
        panel.draw(figure, theme)
        content = base64.b64encode(themes.png(figure)).decode()
        sources.append(f"data:image/png;base64,{content}")
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{sources[0]}"><img src="{sources[1]}" alt="{escape(panel.words)}">'
        f"</picture></figure>"
    )


def _named(values: Mapping[str, Any], words: Mapping[str, str]) -> list[tuple]:
    """(what it is, value) of each, in words where there are any."""
    return [(words.get(k, k.replace("_", " ")), v) for k, v in values.items()]


def _table(heading: str, rows: Iterable[tuple[str, Any]]) -> str:
    lines = "".join(
        f"<tr><td>{escape(what)}</td><td>{escape(_number(value))}</td></tr>"
        for what, value in rows
    )
    return f"<h2>{escape(heading)}</h2><table>{lines}</table>" if lines else ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    whole = isinstance(value, int) or value >= 10_000
    return f"{value:,.0f}" if whole else f"{value:,.4g}"


def name(result: Mapping[str, Any]) -> str:
    """`"task / backbone / method"`."""
    return " / ".join(str(result.get(k, "")) for k in ("task", "backbone", "method"))
