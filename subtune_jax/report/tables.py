"""Tables of a comparison, in Markdown."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
        own = [row for row in rows if (row["task"], row["network"]) == (task, network)]
        plain = all("rate" in row for row in own)
        columns, cells = (TRAININGS, _training_cells) if plain else (SEARCHES, _cells)
        best_first = sorted(own, key=lambda row: -row["mean"])
        lines += [f"### {task} / {network}", ""]
        lines += [table(columns, map(cells, best_first)), ""]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of these cells, without a line end after it."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


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
    rows = []
    for name in names:
        ranks = [row["proxies"].get(name) for row in profiled]
        rows.append([name, *("" if r is None else f"{r:+.2f}" for r in ranks)])
    heading = "### Rank correlation of proxies with the profile"
    columns = ["proxy", *map(_place, profiled)]
    return f"{heading}\n\n{table(columns, rows)}\n"


def trainings(rows: Sequence[Row], baseline: str = "full") -> str:
    """One table of a comparison's trainings, a column for each task and network.

    A cell has mean and deviation of the seeds and the worst of them. Where there is the
    baseline, its paired difference follows: the mean over seeds and its standard error.
    """
    places = list(dict.fromkeys(map(_place, rows)))
    methods: dict[str, dict[str, Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], {})[_place(row)] = row
    columns = ["method", "trained", *places]
    paired = methods.get(baseline, {})
    columns += [f"compared with `{baseline}`: {'; '.join(places)}"] * bool(paired)
    columns += ["drift"] * any("drift" in row for row in rows)
    columns += ["optimiser kB", "learning rate"]
    cells = []
    for method, own in sorted(methods.items(), key=_worst_last):
        here = [own[place] for place in places if place in own]
        line = [f"`{method}`", "; ".join(_distinct(here, "trainable", ",.0f"))]
        line += [_reached(own[place]) if place in own else "" for place in places]
        if paired:
            pairs = [(own[p], paired[p]) for p in places if p in own and p in paired]
            same = method == baseline
            line.append("" if same else "; ".join(_difference(*p) for p in pairs))
        if "drift" in columns:
            line.append("; ".join(f"{row.get('drift', math.nan):.1f}" for row in here))
        kilobytes = [{"kB": row["optimizer_bytes"] / 1e3} for row in here]
        line += ["; ".join(_distinct(kilobytes, "kB", ",.0f"))]
        cells.append([*line, "; ".join(_distinct(here, "rate", ".1g"))])
    return table(columns, cells) + "\n"


def _place(row: Row) -> str:
    return " / ".join(part for part in (row["task"], row["network"]) if part)


def _worst_last(pair: tuple[str, Mapping[str, Row]]) -> float:
    return -statistics.fmean(row["mean"] for row in pair[1].values())


def _distinct(rows: Sequence[Row], key: str, form: str) -> list[str]:
    """The value in every row; one, where all are the same."""
    words = [format(row[key], form) for row in rows]
    return words if len(set(words)) > 1 else words[:1]


def _reached(row: Row) -> str:
    mean, deviation, worst = row["mean"], row["std"], min(row["values"])
    return f"{short(mean)} ± {short(deviation)}, {short(worst)}"


def _difference(row: Row, baseline: Row) -> str:
    """Of the same seeds: the mean difference and its standard error."""
    pairs = zip(row["values"], baseline["values"], strict=True)
    differences = [value - other for value, other in pairs]
    mean, count = statistics.fmean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else math.nan
    return f"{short(mean, '+')} ± {short(error)}"


def short(value: float, sign: str = "") -> str:
    """Three digits without the zero before the point.

    >>> short(0.7604), short(0.0112, "+"), short(1.0)
    ('.760', '+.011', '1.000')
    """
    digits = f"{value:{sign}.3f}"
    return digits.replace("0.", ".", 1) if abs(value) < 0.9995 else digits
