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

from subtune_jax.core import progress, registry
from subtune_jax.report import pareto, sizes, tables
from subtune_jax.study import grid, summaries
from subtune_jax.study.grid import Job, Place
from subtune_jax.study.summaries import Results, Tried
from subtune_jax.subtuning import block_profile, block_search
from subtune_jax.training import assembly, workdir
from subtune_jax.training import results as outcome
from subtune_jax.training import run as train
from subtune_jax.training.loop import NonFiniteLossError
from subtune_jax.training.settings import Settings

PAUSE_SECONDS = 2.0  # before asking again for what other processes have in hand


def run(settings: Settings, folder: Path) -> Path:
    """Runs or resumes everything in `folder`; the path of its `compare.json`.

    Raises:
      ValueError: an input is wrong.
    """
    options = grid.make(**settings["grid"])
    jobs = list(grid.jobs(options))
    if not jobs:
        given = "grid has no methods, profiles or searches"
        raise ValueError(f"{given}; set grid.methods, .profiles or .searches")
    plain = {**settings, "grid": registry.arguments(grid.make)}
    complete = [(job, grid.complete(plain, job)) for job in jobs]
    workdir.check(folder, settings)
    workdir.claim(folder, settings)
    tried, results = _run_all(complete, folder, options)
    rows = summaries.table(results, tried)
    content = {
        "rows": rows, "sizes": summaries.sizes(results, options.seeds[0]),
        "profiles": [summaries.profiled(job, r) for job, r in results if "best" in r],
        "config": settings, "versions": outcome.versions(),
    }  # fmt: skip
    text = tables.markdown(rows) + tables.correlations(content["profiles"])
    (folder / "compare.md").write_text(text)
    if rows:
        (folder / "pareto.png").write_bytes(pareto.pareto(summaries.overall(rows)))
    if content["sizes"]:
        (folder / "sizes.png").write_bytes(sizes.sizes(content["sizes"]))
    return workdir.write_json(folder / "compare.json", content)


def _run_all(
    jobs: Sequence[tuple[Job, Settings]], folder: Path, options: grid.GridOptions
) -> tuple[Tried, Results]:
    """Runs what votes, then the rest at the learning rates that were chosen.

    Returns:
      What each rate brought, and the results without those at rates not chosen.
    """
    early = [job for job, _ in jobs if job.votes]
    total = len(early) + (len(jobs) - len(early)) // max(len(options.rates), 1)
    say, results = progress.latest(), []

    def go(chosen: Sequence[tuple[Job, Settings]]) -> None:
        """Seeds of a run one after the other: the second compiles nothing."""
        programs: dict[str, assembly.Run] = {}
        ordered = sorted(chosen, key=lambda one: _seedless(one[0]))
        for job, own in _reserved(ordered, folder):
            say(f"{len(results) + 1} of {total}: {job.folder}")
            found = _run(job, own, folder / job.folder, options, programs)
            results.append((job, found))

    go([(job, own) for job, own in jobs if job.votes])
    tried = _tried(results)
    chosen = {place: grid.best(values) for place, values in tried.items()}
    rest = [(job, own) for job, own in jobs if not job.votes]
    go([one for one in rest if summaries.rate(one[1]) == chosen[grid.place(one[0])]])
    order = {job.folder: number for number, (job, _) in enumerate(jobs)}
    results.sort(key=lambda one: order[one[0].folder])
    return tried, [
        (job, result)
        for job, result in results
        if job.rate is None
        or summaries.rate(result["config"]) == chosen[grid.place(job)]
    ]


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
    programs: dict[str, assembly.Run],
) -> Mapping[str, Any]:
    """The run's result; only -inf on validation where a rate that votes fails it."""
    try:
        if job.command == "profile":
            path = block_profile.run(settings, folder, options.proxies)
        elif job.command == "search":
            path = block_search.run(settings, folder)
        else:
            path = train.run(settings, folder, programs)
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
            values = here.setdefault(summaries.rate(result["config"]), [])
            values.append(result["metrics"]["validation"])
    return tried
