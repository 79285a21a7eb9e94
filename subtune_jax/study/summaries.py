"""Rows of a comparison: the results of its runs, put together by what they trained."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from subtune_jax.study.grid import Job, Place
from subtune_jax.subtuning import evaluator
from subtune_jax.training.settings import Settings

Row = dict[str, Any]
Results = Sequence[tuple[Job, Mapping[str, Any]]]
Tried = Mapping[Place, Mapping[float, Sequence[float]]]  # -> learning rate -> metrics


def rate(settings: Settings) -> float:
    """The learning rate of a run."""
    return settings["optimizer"]["learning_rate"]


def table(results: Results, tried: Tried | None = None) -> list[Row]:
    """A row for each task, network and method: the test metric over seeds, and costs.

    `flops`, `seconds` and `train_steps` are of one training; `search` is the ledger of
    the search before it, its mean over seeds. Rows of trainings have, as means over
    seeds, `validation`, the counts `selected`, `extras` and `head` and their
    `fraction`, `optimizer_bytes`, `delta_bytes` and `step_seconds`; `failed`, the share
    of runs no better than one guess for all; `drift` where it was measured; and the
    learning rate, `rate`, with those that were tried in `rates`: the mean `validation`
    of the seeds that voted, None where training failed.

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
        "rate": rate(result["config"]),
        **standing(metrics),
    }


def standing(metrics: Mapping[str, Any]) -> Row:
    """Whether the run failed: is it better than one guess for all? And its drift."""
    found: Row = {}
    if "constant" in metrics:
        found["failed"] = float(metrics["test"] <= metrics["constant"])
    if "drift" in metrics:
        found["drift"] = metrics["drift"]
    return found


COSTS = ("train_steps", "flops", "seconds")
COUNTS = ("selected", "extras", "head", "fraction")
BYTES = ("optimizer_bytes", "delta_bytes")
MORE = ("failed", "drift")  # where every row has them
TRAINING = ("validation", *COUNTS, *BYTES, "step_seconds")  # what its rows have besides


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


def profiled(job: Job, result: Mapping[str, Any]) -> Row:
    """The best row of a profile, its cost, and the rank correlation of each proxy."""
    ranks = {
        name: found["rank_correlation"]
        for name, found in result.get("proxies", {}).items()
    }
    row = {key: result[key] for key in ("best", "cost")}
    return {"task": job.task, "network": job.network, **row, "proxies": ranks}
