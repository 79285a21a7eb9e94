"""Rows of a comparison: the results of its runs, put together by what they trained."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from subtune_jax.study import grid
from subtune_jax.study.grid import Job, Place
from subtune_jax.subtuning import evaluator
from subtune_jax.training.settings import Settings

Row = dict[str, Any]
JobResults = Sequence[tuple[Job, Mapping[str, Any]]]
RateMetrics = Mapping[Place, Mapping[float, Sequence[float]]]  # -> rate -> metrics


def rate(settings: Settings) -> float:
    """The learning rate of a run."""
    return settings["optimizer"]["learning_rate"]


def summary(
    job_results: JobResults, rate_metrics: RateMetrics | None = None
) -> dict[str, list[Row]]:
    """`rows`, `sizes` and `profiles` of `compare.json`; see `table` for the rows."""
    seeds = [job.seed for job, _ in job_results]
    return {
        "rows": table(job_results, rate_metrics),
        "sizes": sizes(job_results, seeds[0]),
        "profiles": [
            profiled(job, result) for job, result in job_results if "best" in result
        ],
    }


def rate_metrics(job_results: JobResults) -> RateMetrics:
    """The validation metrics, and nothing else, of the runs that vote on a rate."""
    metrics: dict[Place, dict[float, list[float]]] = {}
    for job, result in job_results:
        if job.rate is not None and job.votes:
            of_rates = metrics.setdefault(grid.place(job), {})
            of_rate = of_rates.setdefault(rate(result["config"]), [])
            of_rate.append(result["metrics"]["validation"])
    return metrics


def at_best_rates(job_results: JobResults, rate_metrics: RateMetrics) -> JobResults:
    """The results without those of learning rates that were not chosen."""
    best = {place: grid.best(metrics) for place, metrics in rate_metrics.items()}
    return [
        (job, result)
        for job, result in job_results
        if job.rate is None or rate(result["config"]) == best[grid.place(job)]
    ]


def table(
    job_results: JobResults, rate_metrics: RateMetrics | None = None
) -> list[Row]:
    """A row for each task, network and method: the test metric over seeds, and costs.

    `flops`, `seconds` and `train_steps` are of one training; `search` is the ledger of
    the search before it, its mean over seeds. Rows of trainings have, as means over
    seeds, `validation`, the counts `selected`, `extras` and `head` and their
    `fraction`, `optimizer_bytes`, `delta_bytes` and `step_seconds`; `failed`, the share
    of runs no better than one guess for all; `drift` where it was measured; and the
    learning rate, `rate`, with all that were tried in `rates`: the mean `validation`
    of the seeds that voted, None where training failed.

    Args:
      job_results: of the runs, those at other rates than the chosen one left out.
      rate_metrics: validation metrics of the rates that were chosen from.
    """
    rows: dict[Place, list[Row]] = {}
    for job, result in job_results:
        if job.folder.split("/")[1].startswith("examples"):
            continue
        for row in _rows(job, result):
            rows.setdefault((job.task, job.network, row["method"]), []).append(row)
    merged = {place: _merged(*place, own) for place, own in rows.items()}
    for place, metrics in (rate_metrics or {}).items():
        merged[place]["rates"] = [
            _rate_row(rate, metrics[rate]) for rate in sorted(metrics)
        ]
    return list(merged.values())


def _rate_row(rate: float, values: Sequence[float]) -> Row:
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
        "rate": rate(result["config"]),
        **standing(metrics),
    }


def standing(metrics: Mapping[str, Any]) -> Row:
    """Whether the run failed: is it better than one guess for all? And its drift."""
    row: Row = {}
    if "constant" in metrics:
        row["failed"] = float(metrics["test"] <= metrics["constant"])
    if "drift" in metrics:
        row["drift"] = metrics["drift"]
    return row


COSTS = ("train_steps", "flops", "seconds")
COUNTS = ("selected", "extras", "head", "fraction")
BYTES = ("optimizer_bytes", "delta_bytes")
MORE = ("failed", "drift")  # where every row has them
TRAINING = ("validation", *COUNTS, *BYTES, "step_seconds")  # the rest of its rows


def _merged(task: str, network: str, method: str, rows: Sequence[Row]) -> Row:
    values = [value for row in rows for value in row["values"]]
    merged: Row = {"task": task, "network": network, "method": method}
    merged |= evaluator.summary(values)
    more = TRAINING if "rate" in rows[0] else ()
    more += tuple(key for key in MORE if all(key in row for row in rows))
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
        merged["blocks"] = [blocks for row in rows for blocks in row["blocks"]]
    return merged


def overall(rows: Sequence[Row]) -> list[Row]:
    """Each method's mean over tasks and networks; flops with those of the search.

    Only methods that every task and network has.
    """
    places = {(row["task"], row["network"]) for row in rows}
    means = []
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
        means.append({"method": method, **mean, "flops": statistics.fmean(spent)})
    return means


def sizes(job_results: JobResults, seed: int) -> list[Row]:
    """Final rows of the first seed's searches by number of training examples."""
    rows = []
    for job, result in job_results:
        if job.command != "search" or job.seed != seed:
            continue
        for final in result["final"]["rows"]:
            row = {key: final[key] for key in ("name", "mean", "std", "blocks")}
            row |= {"task": job.task, "network": job.network}
            count = sum(result["examples"].values())
            rows.append({**row, "train_examples": count})
    counts = {row["train_examples"] for row in rows}
    named = {r["name"] for r in rows if r["train_examples"] == min(counts)}
    return [r for r in rows if r["name"] in named] if len(counts) > 1 else []


def profiled(job: Job, result: Mapping[str, Any]) -> Row:
    """The best row of a profile, its cost, and the rank correlation of each proxy."""
    ranks = {
        name: proxy["rank_correlation"]
        for name, proxy in result.get("proxies", {}).items()
    }
    row = {key: result[key] for key in ("best", "cost")}
    return {"task": job.task, "network": job.network, **row, "proxies": ranks}
