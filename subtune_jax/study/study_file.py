"""A study as one JSON file: every run's figures, without what is repeated.

    subtune compare --config=FILE --workdir=runs/mine --export=results/mine.json

    study = study_file.read(Path("results/mine.json"))
    study["runs"]["elpv/gps_rate1_seed0"]["metrics"]

The file has `study`, its name; `command` and `measured`, the first and the last day of
its runs; the content of the workdir's own JSON that cannot be computed again (`config`,
`versions`, of benchmarks `machine` and `benchmarks`); and `runs`: folder -> the
`result.json`, `profile.json` or `search.json` in it. What all runs share stands once,
in `same`; of a run's config only the keys that differ from the study's are kept. A
mean and a deviation that follow from `values` are left out. `read` puts everything
back, to the last digit.
"""

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subtune_jax.core import registry
from subtune_jax.study import grid, summaries
from subtune_jax.study.summaries import JobResults, RateMetrics, Row
from subtune_jax.subtuning import evaluator
from subtune_jax.training import workdir
from subtune_jax.training.settings import renamed

MAIN = ("compare.json", "seeds.json", "bench.json")  # of a workdir with many runs
RUNS = ("result.json", "profile.json", "search.json")
COMPUTED = ("rows", "sizes", "profiles")  # of `compare.json`, from its runs
REPEATED = ("config", "versions")  # of a run, mostly its study's
MEANS = ("mean", "std")  # follow from `values`

Content = dict[str, Any]


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
        content |= _packed(runs, content)
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
    same = content.pop("same", {})
    own = {key: content[key] for key in REPEATED if key in content}
    for name, run in content.get("runs", {}).items():
        config = _overlaid(_of_runs(own["config"]), run.get("config", {}))
        content["runs"][name] = _with_means({**own, **same, **run, "config": config})
    return content


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
            rows = [f"  {json.dumps(k)}: {_line(v)}" for k, v in value.items()]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n }")
        else:
            lines.append(f"{json.dumps(key)}: {_line(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


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


def _packed(runs: Mapping[str, Content], study: Content) -> Content:
    """`same` and `runs`, without what `study` says already."""
    every = list(runs.values())
    shared = set.intersection(*map(set, every)) - set(REPEATED)
    same = {
        key: value
        for key, value in every[0].items()
        if key in shared and all(run[key] == value for run in every)
    }
    packed = {}
    for name, run in runs.items():
        own = {key: value for key, value in run.items() if key not in same}
        for key in REPEATED:
            own.pop(key)
        if run["versions"] != study["versions"]:
            own["versions"] = run["versions"]
        if changes := _changes(run["config"], _of_runs(study["config"])):
            own["config"] = changes
        packed[name] = _without_means(own)
    return {"same": same, "runs": packed} if same else {"runs": packed}


def _of_runs(config: Mapping[str, Any]) -> Content:
    """The study's config as its runs have it: they compare nothing themselves."""
    none = json.loads(json.dumps(registry.arguments(grid.make)))
    return {**config, **({"grid": none} if "grid" in config else {})}


def _changes(config: Mapping[str, Any], plain: Mapping[str, Any]) -> Content:
    """Keys of `config` that differ from `plain`; a part of another name is whole."""
    changes: Content = {}
    for key, value in config.items():
        if _same_part(value, plain.get(key)):
            if other := _changes(value, plain[key]):
                changes[key] = other
        elif key not in plain or plain[key] != value:
            changes[key] = value
    return changes


def _overlaid(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> Content:
    """`plain` with the keys of `changes`; a part with a name replaces the other."""
    config = dict(plain)
    for key, value in changes.items():
        part = isinstance(value, Mapping) and isinstance(plain.get(key), Mapping)
        merges = part and "name" not in value
        config[key] = _overlaid(plain[key], value) if merges else value
    return config


def _same_part(part: Any, other: Any) -> bool:
    """Are both dicts, of the same plug-in if they are of one?"""
    if not isinstance(part, Mapping) or not isinstance(other, Mapping):
        return False
    return part.get("name") == other.get("name")


def _without_means(value: Any) -> Any:
    """Without each `mean` and `std` that is the summary of the `values` beside it."""
    if isinstance(value, list):
        return [_without_means(part) for part in value]
    if not isinstance(value, dict):
        return value
    follows = _means(value)
    return {
        key: _without_means(part)
        for key, part in value.items()
        if key not in MEANS or follows is None or part != follows[key]
    }


def _with_means(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_means(part) for part in value]
    if not isinstance(value, dict):
        return value
    follows = _means(value) or {}
    means = {key: follows[key] for key in MEANS if key in follows}
    return {**means, **{key: _with_means(part) for key, part in value.items()}}


def _means(value: Content) -> Content | None:
    numbers = value.get("values")
    if not isinstance(numbers, list) or not numbers:
        return None
    return evaluator.summary(numbers)
