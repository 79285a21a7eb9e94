"""Many runs, one table: methods, searches and profiles x tasks x networks x seeds.

    subtune compare --config=configs/subtuning_study.py --workdir=runs/study

Each run is that of its own command, in a folder of its own below the workdir: the same
command resumes where it was killed. Writes `compare.json`, `compare.md`, `pareto.png`
and, with several sizes of training data, `sizes.png`.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax import commands, grid, outcome, profile, search, train, valued, workdir
from subtune_jax import settings as settings_
from subtune_jax.grid import Job
from subtune_jax.report import pareto
from subtune_jax.report import sizes as sizes_
from subtune_jax.settings import Settings

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = commands.parser("compare", "methods x tasks x networks x seeds, one table")
    return commands.run(parse, lambda s, given: run(s, given.workdir), argv)


def run(settings: Settings, folder: Path) -> Path:
    """Runs or resumes everything in `folder`; the path of its `compare.json`.

    Raises:
      ValueError: an input is wrong.
    """
    options = grid.make(**settings["compare"])
    jobs = list(grid.jobs(options))
    if not jobs:
        given = "compare has no methods, profiles or searches"
        raise ValueError(f"{given}; set compare.methods, .profiles or .searches")
    plain = {key: value for key, value in settings.items() if key != "compare"}
    complete = [settings_.changed(plain, *job.changes) for job in jobs]
    workdir.check(folder, settings)
    workdir.claim(folder, settings)
    say, results = commands.progress(), []
    for number, (job, own) in enumerate(zip(jobs, complete, strict=True), 1):
        say(f"{number} of {len(jobs)}: {job.folder}")
        path = _run(job, own, folder / job.folder, options)
        results.append((job, json.loads(path.read_text())))
    rows = table(results)
    content = {
        "rows": rows, "sizes": sizes(results, options.seeds[0]),
        "profiles": [_profiled(job, r) for job, r in results if "best" in r],
        "config": settings, "versions": outcome.versions(),
    }  # fmt: skip
    text = markdown(rows) + correlations(content["profiles"])
    (folder / "compare.md").write_text(text)
    if rows:
        (folder / "pareto.png").write_bytes(pareto.pareto(overall(rows)))
    if content["sizes"]:
        (folder / "sizes.png").write_bytes(sizes_.sizes(content["sizes"]))
    return workdir.write_json(folder / "compare.json", content)


def _run(job: Job, settings: Settings, folder: Path, options: grid.Options) -> Path:
    if job.command == "profile":
        return profile.run(settings, folder, options.proxies)
    return {"search": search.run, "train": train.run}[job.command](settings, folder)


def table(results: Sequence[tuple[Job, Mapping[str, Any]]]) -> list[Row]:
    """A row for each task, network and method: the test metric over seeds, and costs.

    `flops`, `seconds` and `train_steps` are of one training; `search` is the ledger of
    the search before it, its mean over seeds.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for job, result in results:
        if job.folder.split("/")[1].startswith("examples"):
            continue
        for row in _rows(job, result):
            found.setdefault((job.task, job.network, row["method"]), []).append(row)
    return [_merged(*key, rows) for key, rows in found.items()]


def _rows(job: Job, result: Mapping[str, Any]) -> list[Row]:
    """The rows of one run, a value or several each."""
    if job.command == "train":
        cost = result["cost"]
        flops = cost["step_flops"] * cost["train_steps"]
        counts, metrics = result["trainable"], result["metrics"]
        return [
            {
                "method": job.method,
                "values": [metrics["test"]],
                "trainable": counts["selected"] + counts["extras"],
                "train_steps": cost["train_steps"],
                "flops": flops,
                "seconds": cost["train_seconds"],
            }
        ]
    rows = []
    for final in result.get("final", {}).get("rows", []):
        row = {key: final[key] for key in (*COSTS, "trainable")}
        row["method"], row["values"] = final["name"], final["values"]
        if "selected" in final["name"]:
            row |= {"search": result["cost"], "blocks": [result["selected"]]}
            if final["name"] == "selected":  # each seed trains what it found itself
                row["values"] = final["values"][:1]
        rows.append(row)
    return rows


COSTS = ("train_steps", "flops", "seconds")


def _merged(task: str, network: str, method: str, rows: Sequence[Row]) -> Row:
    values = [value for row in rows for value in row["values"]]
    merged: Row = {"task": task, "network": network, "method": method}
    merged |= valued.summary(values)
    for key in ("trainable", *COSTS):
        merged[key] = statistics.fmean(row[key] for row in rows)
    ledgers = [row["search"] for row in rows if "search" in row]
    if ledgers:
        merged["search"] = {
            key: statistics.fmean(ledger[key] for ledger in ledgers)
            for key in ledgers[0]
        }
        merged["blocks"] = [one for row in rows for one in row["blocks"]]
    return merged


def overall(rows: Sequence[Row]) -> list[Row]:
    """Each method's mean over tasks and networks; flops with those of the search.

    Only methods that every task and network has.
    """
    places = {(row["task"], row["network"]) for row in rows}
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        if len(own) < len(places):
            continue
        spent = [r["flops"] + r.get("search", {}).get("flops", 0.0) for r in own]
        mean = {
            "mean": statistics.fmean(row["mean"] for row in own),
            "std": statistics.fmean(row["std"] for row in own),
            "trainable": statistics.fmean(row["trainable"] for row in own),
        }
        found.append({"method": method, **mean, "flops": statistics.fmean(spent)})
    return found


def sizes(results: Sequence[tuple[Job, Mapping[str, Any]]], seed: int) -> list[Row]:
    """Final rows of the first seed's searches by number of training examples."""
    found = []
    for job, result in results:
        if job.command != "search" or job.seed != seed:
            continue
        for final in result["final"]["rows"]:
            row = {key: final[key] for key in ("name", "mean", "std", "blocks")}
            row |= {"task": job.task, "network": job.network}
            count = sum(result["examples"].values())
            found.append({**row, "train_examples": count})
    counts = {row["train_examples"] for row in found}
    named = {r["name"] for r in found if r["train_examples"] == min(counts)}
    return [r for r in found if r["name"] in named] if len(counts) > 1 else []


def markdown(rows: Sequence[Row]) -> str:
    """The table, one for each task and network, methods best first."""
    lines: list[str] = []
    for task, network in dict.fromkeys((r["task"], r["network"]) for r in rows):
        own = [r for r in rows if (r["task"], r["network"]) == (task, network)]
        lines += [f"### {task} / {network}", "", *HEADING]
        for row in sorted(own, key=lambda row: -row["mean"]):
            ledger = row.get("search", dict.fromkeys(LEDGER, 0))
            cells = [
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
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


LEDGER = ("trainings", "train_steps", "flops", "seconds")
HEADING = [
    "| method | test | trained | steps | Tflop | seconds | search: trainings | steps "
    "| Tflop | seconds |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


def _profiled(job: Job, result: Mapping[str, Any]) -> Row:
    ranks = {
        name: found["rank_correlation"]
        for name, found in result.get("proxies", {}).items()
    }
    row = {key: result[key] for key in ("best", "cost")}
    return {"task": job.task, "network": job.network, **row, "proxies": ranks}


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


if __name__ == "__main__":
    sys.exit(main())
