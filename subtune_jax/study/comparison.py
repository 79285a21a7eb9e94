"""Many runs, one table: methods, searches and profiles x tasks x networks x seeds.

    subtune compare --config=configs/subtuning_study.py --workdir=runs/study

Each run is that of its own command, in a folder of its own below the workdir: the same
command resumes where it was killed, and started more than once on one machine, it
shares the runs among its processes. Writes `compare.json`, `compare.md`, `pareto.png`
and, with several sizes of training data, `sizes.png`.

With `grid.rates`, validation chooses the learning rate of every training. The runs
at other rates keep their test metric in their folders; nothing here reads it.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax.core import process, registry
from subtune_jax.core.program_store import Store
from subtune_jax.report import pareto, sizes, tables
from subtune_jax.study import grid, summaries
from subtune_jax.study.grid import Job
from subtune_jax.study.summaries import JobResults, RateMetrics
from subtune_jax.subtuning import block_profile, block_search
from subtune_jax.training import results, run, workdir
from subtune_jax.training.results import NonFiniteLossError
from subtune_jax.training.settings import Settings

PAUSE_SECONDS = 2.0  # before asking again for what other processes have in hand


def compare(settings: Settings, folder: Path) -> Path:
    """Runs or resumes everything in `folder`; the path of its `compare.json`.

    Raises:
      ValueError: an input is wrong.
    """
    options = grid.make(**settings["grid"])
    jobs = list(grid.jobs(options))
    if not jobs:
        problem = "grid has no methods, profiles or searches"
        raise ValueError(f"{problem}; set grid.methods, .profiles or .searches")
    plain = {**settings, "grid": registry.arguments(grid.make)}
    complete = [(job, grid.complete(plain, job)) for job in jobs]
    workdir.check(folder, settings)
    workdir.claim(folder, settings)
    job_results, rate_metrics = _run_all(complete, folder, options)
    summary = summaries.summary(job_results, rate_metrics)
    rows, by_size = summary["rows"], summary["sizes"]
    text = tables.markdown(rows) + tables.correlations(summary["profiles"])
    (folder / "compare.md").write_text(text)
    if rows:
        (folder / "pareto.png").write_bytes(pareto.pareto(summaries.overall(rows)))
    if by_size:
        (folder / "sizes.png").write_bytes(sizes.sizes(by_size))
    content = {**summary, "config": settings, "versions": results.versions()}
    return workdir.write_json(folder / "compare.json", content)


def _run_all(
    jobs: Sequence[tuple[Job, Settings]], folder: Path, options: grid.GridOptions
) -> tuple[JobResults, RateMetrics]:
    """Runs what votes, then the rest at the learning rates that were chosen.

    Returns:
      The results without those at rates not chosen, and what each rate reached.
    """
    voting = [(job, own) for job, own in jobs if job.votes]
    total = len(voting) + (len(jobs) - len(voting)) // max(len(options.rates), 1)
    say, job_results = process.latest(), []

    def run_these(some: Sequence[tuple[Job, Settings]]) -> None:
        """Seeds of a run one after the other: the second compiles nothing."""
        programs: dict[str, Store] = {}
        ordered = sorted(some, key=lambda pair: _seedless(pair[0]))
        for job, own in _reserved(ordered, folder):
            say(f"{len(job_results) + 1} of {total}: {job.folder}")
            result = _run(job, own, folder / job.folder, options, programs)
            job_results.append((job, result))

    run_these(voting)
    rate_metrics = summaries.rate_metrics(job_results)
    best = {place: grid.best(metrics) for place, metrics in rate_metrics.items()}
    run_these(
        [
            (job, own)
            for job, own in jobs
            if not job.votes and summaries.rate(own) == best[grid.place(job)]
        ]
    )
    order = {job.folder: number for number, (job, _) in enumerate(jobs)}
    job_results.sort(key=lambda pair: order[pair[0].folder])
    return summaries.at_best_rates(job_results, rate_metrics), rate_metrics


def _reserved(
    jobs: Sequence[tuple[Job, Settings]], folder: Path
) -> Iterator[tuple[Job, Settings]]:
    """Every job, while no other process has it.

    What another one has in hand is left for later: then it is finished, or that process
    was killed and the job is resumed.
    """
    waiting = list(jobs)
    while waiting:
        left = []
        for job, own in waiting:
            with workdir.reserved(folder / job.folder) as ours:
                if ours:
                    yield job, own
                else:
                    left.append((job, own))
        if len(left) == len(waiting):
            time.sleep(PAUSE_SECONDS)
        waiting = left


def _seedless(job: Job) -> tuple[str, str, str, str, float]:
    """What seeds of a run share."""
    return job.command, job.task, job.network, job.method, job.rate or 0.0


def _run(
    job: Job,
    settings: Settings,
    folder: Path,
    options: grid.GridOptions,
    programs: dict[str, Store],
) -> Mapping[str, Any]:
    """The run's result; only -inf on validation where a rate that votes fails it."""
    try:
        if job.command == "profile":
            path = block_profile.run(settings, folder, options.proxies)
        elif job.command == "search":
            path = block_search.run(settings, folder)
        else:
            path = run.run(settings, folder, programs)
    except NonFiniteLossError as error:
        if job.rate is None or not job.votes:
            raise
        print(f"{job.folder}: {error}", file=sys.stderr, flush=True)
        return {"metrics": {"validation": -math.inf}, "config": settings}
    return json.loads(path.read_text())
