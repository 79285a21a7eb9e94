"""Tables of a comparison, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
COUNTS = ("selected", "extras", "head")


def markdown(rows: Sequence[Row]) -> str:
    """The table, one for each task and network, methods best first.

    Where all rows are trainings, their counts, bytes and rates take the place of the
    ledgers of searches.
    """
    lines: list[str] = []
    for task, network in dict.fromkeys((r["task"], r["network"]) for r in rows):
        own = [r for r in rows if (r["task"], r["network"]) == (task, network)]
        plain = all("rate" in row for row in own)
        columns, cells = (TRAININGS, _training_cells) if plain else (SEARCHES, _cells)
        lines += [f"### {task} / {network}", "", f"| {' | '.join(columns)} |"]
        lines.append("|---" * len(columns) + "|")
        for row in sorted(own, key=lambda row: -row["mean"]):
            lines.append(f"| {' | '.join(cells(row))} |")
        lines.append("")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    ledger = row.get("search", dict.fromkeys(LEDGER, 0))
    return [
        row["method"],
        f"{row['mean']:.3f} ± {row['std']:.3f}",
        f"{row['trainable']:,.0f}",
        f"{row['train_steps']:.0f}",
        f"{row['flops'] / 1e12:.3g}",
        f"{row['seconds']:.0f}",
        *(f"{ledger[key]:.0f}" for key in LEDGER[:2]),
        f"{ledger['flops'] / 1e12:.3g}",
        f"{ledger['seconds']:.0f}",
    ]


def _training_cells(row: Row) -> list[str]:
    return [
        row["method"],
        f"{row['mean']:.3f} ± {row['std']:.3f}",
        f"{min(row['values']):.3f}",
        "" if "failed" not in row else f"{row['failed']:.0%}",
        "" if "drift" not in row else f"{row['drift']:.3f}",
        *(f"{row[key]:,.0f}" for key in COUNTS),
        f"{row['optimizer_bytes'] / 1e3:,.0f}",
        f"{row['step_seconds'] * 1e3:,.1f}",
        f"{row['rate']:.3g}",
    ]


LEDGER = ("trainings", "train_steps", "flops", "seconds")
SEARCHES = (
    "method", "test", "trained", "steps", "Tflop", "seconds",
    "search: trainings", "steps", "Tflop", "seconds",
)  # fmt: skip
TRAININGS = (
    "method", "test", "worst", "failed", "drift", "selected", "extras", "head",
    "optimiser kB", "step ms", "rate",
)  # fmt: skip


def correlations(profiled: Sequence[Row]) -> str:
    """Rank correlation of each proxy with each profile, as a table."""
    names = list(dict.fromkeys(name for row in profiled for name in row["proxies"]))
    if not names:
        return ""
    places = [f"{row['task']} / {row['network']}" for row in profiled]
    lines = ["### Rank correlation of proxies with the profile", ""]
    lines += [f"| proxy | {' | '.join(places)} |", "|---" * (1 + len(places)) + "|"]
    for name in names:
        cells = [row["proxies"].get(name) for row in profiled]
        words = ["" if cell is None else f"{cell:+.2f}" for cell in cells]
        lines.append(f"| {name} | {' | '.join(words)} |")
    return "\n".join([*lines, ""])
