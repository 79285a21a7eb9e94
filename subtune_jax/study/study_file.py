"""A study as one JSON file: every run's figures, without what is repeated.

    subtune compare --config=FILE --workdir=runs/mine --export=results/mine.json

    study = study_file.read(Path("results/mine.json"))
    study["runs"]["elpv/gps_rate1_seed0"]["metrics"]

The file has `study`, its name; `command` and `measured`, the first and the last day of
its runs; the content of the workdir's own JSON that cannot be computed again (`config`,
`versions`, of benchmarks `machine` and `benchmarks`); and `runs`: folder -> the
`result.json`, `profile.json` or `search.json` in it, without what `packing` leaves out.
"""

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subtune_jax.study import grid, packing, summaries
from subtune_jax.study.packing import REPEATED, Content
from subtune_jax.study.summaries import JobResults, RateMetrics, Row
from subtune_jax.training import workdir
from subtune_jax.training.settings import renamed

MAIN = ("compare.json", "seeds.json", "bench.json")  # of a workdir with many runs
RUNS = ("result.json", "profile.json", "search.json")
COMPUTED = ("rows", "sizes", "profiles")  # of `compare.json`, from its runs


def check_path(path: Path | None) -> None:
    """Refuses an `--export` that names no JSON file, before anything runs.

    Raises:
      ValueError: the name does not end in `.json`.
    """
    if path is not None and path.suffix != ".json":
        raise ValueError(f"--export={path}; it must be a file and end in .json")


def write(folder: Path, path: Path, command: str) -> Path:
    """Writes the study of a finished workdir to `path`.

    Args:
      folder: the workdir of `compare`, `seeds` or `bench`, or of one run.
      path: of the new file, which may exist.
      command: what is noted as the command of these figures.

    Raises:
      ValueError: nothing in `folder` is finished.
    """
    main = next((folder / name for name in MAIN if (folder / name).exists()), None)
    files = sorted(file for name in RUNS for file in folder.rglob(name))
    if main is None and not files:
        raise ValueError(f"nothing is finished in {folder}; run the command first")
    content: Content = {
        "study": path.stem,
        "command": command,
        "measured": _days([*files, main] if main else files),
        **_main(folder, main or files[0]),
    }
    runs = {file.parent.relative_to(folder).as_posix(): _read(file) for file in files}
    if runs:
        content |= packing.pack(runs, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(content))
    return path


def read(path: Path) -> Content:
    """The study of a file that `write` wrote: `runs` are complete again.

    Raises:
      ValueError: `path` is no such file.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or "study" not in content:
        raise ValueError(f"{path} is no study; write one with --export={path}")
    return packing.unpack(content)


def compares(study: Mapping[str, Any]) -> bool:
    """Is it of `subtune compare`, whose runs are in folders of tasks and networks?"""
    return any("/" in folder for folder in study.get("runs", {}))


def summary(study: Mapping[str, Any]) -> dict[str, list[Row]]:
    """`rows`, `sizes` and `profiles` of its `compare.json`."""
    return summaries.summary(*_job_results(study))


def _job_results(study: Mapping[str, Any]) -> tuple[JobResults, RateMetrics]:
    """As `compare` had them: a run that voted and has no result had failed."""
    failed = {"metrics": {"validation": -math.inf}}
    plain = {**study["config"], "grid": {}}
    everything = []
    for job in grid.jobs(grid.make(**study["config"]["grid"])):
        if job.folder in study["runs"]:
            everything.append((job, study["runs"][job.folder]))
        elif job.rate is not None and job.votes:
            everything.append((job, {**failed, "config": grid.complete(plain, job)}))
    rate_metrics = summaries.rate_metrics(everything)
    return summaries.at_best_rates(everything, rate_metrics), rate_metrics


def text(content: Content) -> str:
    """The JSON of a study: a line for each key, run and benchmark."""
    lines = []
    for key, value in content.items():
        if key in ("runs", "benchmarks"):
            rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n }")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _read(path: Path) -> Content:
    """A result with the names of today in its config."""
    content = json.loads(path.read_text())
    return {**content, "config": renamed(content["config"])}


def _main(folder: Path, main: Path) -> Content:
    """What is said of all runs."""
    content = _read(main)
    if main.name in RUNS:
        return {key: content[key] for key in REPEATED}
    if main.name == "seeds.json":  # all else is computed from the runs
        keys = ("how", *REPEATED)
        return {key: content[key] for key in keys}
    config = renamed(json.loads((folder / workdir.CONFIG).read_text()))
    content = {key: v for key, v in content.items() if key not in COMPUTED}
    return {**content, "config": config}


def _days(files: list[Path]) -> dict[str, str]:
    """The first and the last day, UTC, on which one of the files was written."""
    times = [file.stat().st_mtime for file in files]
    first, last = (
        datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat()
        for time in (min(times), max(times))
    )
    return {"first": first, "last": last}
