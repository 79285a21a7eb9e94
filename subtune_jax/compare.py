"""Many runs, one table: methods, searches and profiles x tasks x networks x seeds.

    subtune compare --config=configs/subtuning_study.py --workdir=runs/study

Each run is that of its own command, in a folder of its own below the workdir: the same
command resumes where it was killed. Writes `compare.json`, `compare.md`, `pareto.png`
and, with several sizes of training data, `sizes.png`.

With `compare.rates`, validation chooses the learning rate of every training. The runs
at other rates keep their test metric in their folders; nothing here reads it.
"""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax import commands, grid, outcome, profile, search, train, valued, workdir
from subtune_jax.grid import Job, Place
from subtune_jax.loop import NonFiniteLossError
from subtune_jax.report import pareto, tables
from subtune_jax.report import sizes as sizes_
from subtune_jax.settings import Settings

Row = dict[str, Any]
Results = Sequence[tuple[Job, Mapping[str, Any]]]
Tried = Mapping[Place, Mapping[float, Sequence[float]]]  # -> learning rate -> metrics


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
    complete = [(job, grid.complete(plain, job)) for job in jobs]
    workdir.check(folder, settings)
    workdir.claim(folder, settings)
    tried, results = _run_all(complete, folder, options)
    rows = table(results, tried)
    content = {
        "rows": rows, "sizes": sizes(results, options.seeds[0]),
        "profiles": [_profiled(job, r) for job, r in results if "best" in r],
        "config": settings, "versions": outcome.versions(),
    }  # fmt: skip
    text = tables.markdown(rows) + tables.correlations(content["profiles"])
    (folder / "compare.md").write_text(text)
    if rows:
        (folder / "pareto.png").write_bytes(pareto.pareto(overall(rows)))
    if content["sizes"]:
        (folder / "sizes.png").write_bytes(sizes_.sizes(content["sizes"]))
    return workdir.write_json(folder / "compare.json", content)


def _run_all(
    jobs: Sequence[tuple[Job, Settings]], folder: Path, options: grid.Options
) -> tuple[Tried, Results]:
    """Runs what votes, then the rest at the learning rates that were chosen.

    Returns:
      What each rate brought, and the results without those at rates not chosen.
    """
    early = [job for job, _ in jobs if job.votes]
    total = len(early) + (len(jobs) - len(early)) // max(len(options.rates), 1)
    say, results = commands.progress(), []

    def go(job: Job, own: Settings) -> None:
        say(f"{len(results) + 1} of {total}: {job.folder}")
        results.append((job, _run(job, own, folder / job.folder, options)))

    for job, own in jobs:
        if job.votes:
            go(job, own)
    tried = _tried(results)
    chosen = {place: grid.best(values) for place, values in tried.items()}
    for job, own in jobs:
        if not job.votes and _rate(own) == chosen[grid.place(job)]:
            go(job, own)
    return tried, [
        (job, result)
        for job, result in results
        if job.rate is None or _rate(result["config"]) == chosen[grid.place(job)]
    ]


def _run(
    job: Job, settings: Settings, folder: Path, options: grid.Options
) -> Mapping[str, Any]:
    """The run's result; only -inf on validation where a rate that votes fails it."""
    try:
        if job.command == "profile":
            path = profile.run(settings, folder, options.proxies)
        else:
            command = {"search": search.run, "train": train.run}[job.command]
            path = command(settings, folder)
    except NonFiniteLossError as error:
        if job.rate is None or not job.votes:
            raise
        print(f"{job.folder}: {error}", file=sys.stderr, flush=True)
        return {"metrics": {"validation": -math.inf}, "config": settings}
    return json.loads(path.read_text())


def _tried(results: Results) -> Tried:
    """The validation metrics, and nothing else, of the runs that vote on a rate."""
    tried: dict[Place, dict[float, list[float]]] = {}
    for job, result in results:
        if job.rate is not None:
            here = tried.setdefault(grid.place(job), {})
            values = here.setdefault(_rate(result["config"]), [])
            values.append(result["metrics"]["validation"])
    return tried


def _rate(settings: Settings) -> float:
    return settings["optimizer"]["learning_rate"]


def table(results: Results, tried: Tried | None = None) -> list[Row]:
    """A row for each task, network and method: the test metric over seeds, and costs.

    `flops`, `seconds` and `train_steps` are of one training; `search` is the ledger of
    the search before it, its mean over seeds. Rows of trainings have, as means over
    seeds, `validation`, the counts `selected`, `extras` and `head` and their
    `fraction`, `optimizer_bytes`, `delta_bytes` and `step_seconds`; and the learning
    rate, `rate`, with those that were tried in `rates`: the mean `validation` of the
    seeds that voted, None where training failed.

    Args:
      results: of the runs, those at other rates than the chosen one left out.
      tried: validation metrics of the rates that were chosen from.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for job, result in results:
        if job.folder.split("/")[1].startswith("examples"):
            continue
        for row in _rows(job, result):
            found.setdefault((job.task, job.network, row["method"]), []).append(row)
    merged = {key: _merged(*key, rows) for key, rows in found.items()}
    for place, rates in (tried or {}).items():
        merged[place]["rates"] = [_mean(rate, rates[rate]) for rate in sorted(rates)]
    return list(merged.values())


def _mean(rate: float, values: Sequence[float]) -> Row:
    mean = statistics.fmean(values)
    return {"rate": rate, "validation": mean if math.isfinite(mean) else None}


def _rows(job: Job, result: Mapping[str, Any]) -> list[Row]:
    """The rows of one run, a value or several each."""
    if job.command == "train":
        return [_training(job, result)]
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


def _training(job: Job, result: Mapping[str, Any]) -> Row:
    cost, counts, metrics = result["cost"], result["trainable"], result["metrics"]
    steps, seconds = cost["train_steps"], cost["train_seconds"]
    return {
        "method": job.method,
        "values": [metrics["test"]],
        "trainable": counts["selected"] + counts["extras"],
        "train_steps": steps,
        "flops": cost["step_flops"] * steps,
        "seconds": seconds,
        "validation": metrics["validation"],
        **{key: counts[key] for key in COUNTS},
        **{key: cost[key] for key in BYTES},
        "step_seconds": seconds / steps,
        "rate": _rate(result["config"]),
    }


COSTS = ("train_steps", "flops", "seconds")
COUNTS = ("selected", "extras", "head", "fraction")
BYTES = ("optimizer_bytes", "delta_bytes")
TRAINING = ("validation", *COUNTS, *BYTES, "step_seconds")  # what its rows have besides


def _merged(task: str, network: str, method: str, rows: Sequence[Row]) -> Row:
    values = [value for row in rows for value in row["values"]]
    merged: Row = {"task": task, "network": network, "method": method}
    merged |= valued.summary(values)
    more = TRAINING if "rate" in rows[0] else ()
    for key in ("trainable", *COSTS, *more):
        merged[key] = statistics.fmean(row[key] for row in rows)
    if more:
        merged["rate"] = rows[0]["rate"]  # the same for every seed
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


def sizes(results: Results, seed: int) -> list[Row]:
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


def _profiled(job: Job, result: Mapping[str, Any]) -> Row:
    ranks = {
        name: found["rank_correlation"]
        for name, found in result.get("proxies", {}).items()
    }
    row = {key: result[key] for key in ("best", "cost")}
    return {"task": job.task, "network": job.network, **row, "proxies": ranks}


if __name__ == "__main__":
    sys.exit(main())
