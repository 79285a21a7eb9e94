"""What a method costs, compared with full fine-tuning, in one run.

    subtune bench --config=configs/bench_vit.py --workdir=runs/bench_vit

Writes `bench.json`. Each benchmark is one file in `benches/`: `run(setup, repeats)`, or
`run(repeats)` where it needs no config, returns its figures. All times are compared
inside one process, by turns. A benchmark that is in the workdir is not run again.
"""

import importlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from subtune_jax.core import registry, trees
from subtune_jax.training import results, setup, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup


def measure(
    settings: Settings, folder: Path, only: str | None, repeats: int, command: str
) -> Path:
    """Runs the benchmarks that the workdir lacks; the path of `bench.json`.

    Args:
      settings: complete.
      folder: the workdir.
      only: `NAME,NAME`, some of the benchmarks; None for all.
      repeats: turns of every timing, 1 or more.
      command: what is noted as the command of these figures.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    wanted = _wanted(only)
    if repeats < 1:
        raise ValueError(f"--repeats={repeats}; it must be 1 or more")
    path = folder / "bench.json"
    workdir.check(folder, settings)
    benchmarks = json.loads(path.read_text())["benchmarks"] if path.exists() else {}
    missing = [name for name in wanted if name not in benchmarks]
    prepared = setup.prepare(settings) if any(map(_needs_setup, missing)) else None
    workdir.claim(folder, settings)
    for name in missing:
        print(f"{name} ...", file=sys.stderr, flush=True)
        benchmarks[name] = {"command": command, **_measured(name, prepared, repeats)}
        content = {"machine": machine(), "versions": results.versions()}
        content |= {"config": settings, "benchmarks": benchmarks}
        workdir.write_json(path, content)
    Console(stderr=True).print(table({name: benchmarks[name] for name in wanted}))
    return path


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def table(benchmarks: dict[str, Any]) -> Table:
    """The checks of every benchmark; the ratios of one that checks nothing."""
    lines = Table("benchmark", "what", "value", "at most", "")
    for name, result in benchmarks.items():
        for row in result.get("checks", ()):
            verdict = "holds" if row["holds"] else "[red]does not hold"
            numbers = (f"{row[key]:.4g}" for key in ("value", "limit"))
            lines.add_row(name, row["what"], *numbers, verdict)
        if "checks" not in result:
            for what, value in trees.flatten(result.get("ratios", {})).items():
                lines.add_row(name, what, "" if value is None else f"{value:.4g}")
    return lines


def _wanted(only: str | None) -> list[str]:
    known = registry.plugins("study.benches")
    wanted = known if only is None else only.split(",")
    for name in wanted:
        if name not in known:
            problem = f"no benchmark named {name!r}"
            raise ValueError(f"{problem}; {registry.near(name, known)}")
    return wanted


def _run(name: str) -> Callable[..., dict[str, Any]]:
    return importlib.import_module(f"subtune_jax.study.benches.{name}").run


def _needs_setup(name: str) -> bool:
    return "setup" in inspect.signature(_run(name)).parameters


def _measured(name: str, prepared: Setup | None, repeats: int) -> dict[str, Any]:
    begin, load = time.perf_counter(), os.getloadavg()
    run = _run(name)
    result = run(prepared, repeats) if _needs_setup(name) else run(repeats)
    seconds = time.perf_counter() - begin
    loads = {"before": load, "after": os.getloadavg()}  # over 1, 5 and 15 minutes
    return {**result, "repeats": repeats, "seconds": seconds, "load_average": loads}
