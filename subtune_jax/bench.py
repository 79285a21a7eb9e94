"""What a method costs, beside full fine-tuning, in one run.

    subtune bench --config=configs/bench_vit.py --workdir=runs/bench_vit

Writes `bench.json`. Each benchmark is a file in `benches/`: `run(made, repeats)`, or
`run(repeats)` where it needs no config, returns its figures. All times are compared
inside one process, by turns. A benchmark that is in the workdir is not run again.
"""

import argparse
import importlib
import inspect
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from subtune_jax import commands, names, outcome, setup, trees, workdir
from subtune_jax.settings import Settings
from subtune_jax.setup import Setup

REPEATS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = commands.parser("bench", "what a method costs, beside full fine-tuning")
    known = ", ".join(names.plugins("benches"))
    parse.add_argument("--only", metavar="NAME,NAME", help=f"some of {known}")
    parse.add_argument(
        "--repeats", type=int, default=REPEATS, help="turns of every timing"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", "-m", "subtune_jax.bench", *arguments])
    return commands.run(parse, lambda s, given: run(s, given, command), argv)


def run(settings: Settings, given: argparse.Namespace, command: str) -> Path:
    """Runs the benchmarks that the workdir lacks; the path of `bench.json`.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    wanted = _wanted(given.only)
    if given.repeats < 1:
        raise ValueError(f"--repeats={given.repeats}; it must be 1 or more")
    folder, path = given.workdir, given.workdir / "bench.json"
    workdir.check(folder, settings)
    found = json.loads(path.read_text())["benchmarks"] if path.exists() else {}
    missing = [name for name in wanted if name not in found]
    made = setup.prepare(settings) if any(map(_needs_config, missing)) else None
    workdir.claim(folder, settings)
    for name in missing:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = _measured(name, made, given.repeats)
        found[name] = {"command": command, **result}
        content = {"machine": machine(), "versions": outcome.versions()}
        content |= {"config": settings, "benchmarks": found}
        workdir.write_json(path, content)
    Console(stderr=True).print(table({name: found[name] for name in wanted}))
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
    made = Table("benchmark", "what", "value", "at most", "")
    for name, result in benchmarks.items():
        for row in result.get("checks", ()):
            verdict = "holds" if row["holds"] else "[red]does not hold"
            numbers = (f"{row[key]:.4g}" for key in ("value", "limit"))
            made.add_row(name, row["what"], *numbers, verdict)
        if "checks" not in result:
            for what, value in trees.flatten(result.get("ratios", {})).items():
                made.add_row(name, what, "" if value is None else f"{value:.4g}")
    return made


def _wanted(only: str | None) -> list[str]:
    known = names.plugins("benches")
    wanted = known if only is None else only.split(",")
    for name in wanted:
        if name not in known:
            given = f"no benchmark named {name!r}"
            raise ValueError(f"{given}; {names.near(name, known)}")
    return wanted


def _run(name: str) -> Callable[..., dict[str, Any]]:
    return importlib.import_module(f"subtune_jax.benches.{name}").run


def _needs_config(name: str) -> bool:
    return "made" in inspect.signature(_run(name)).parameters


def _measured(name: str, made: Setup | None, repeats: int) -> dict[str, Any]:
    begin, load = time.perf_counter(), os.getloadavg()
    function = _run(name)
    result = function(made, repeats) if _needs_config(name) else function(repeats)
    seconds = time.perf_counter() - begin
    loads = {"before": load, "after": os.getloadavg()}  # over 1, 5 and 15 minutes
    return {**result, "repeats": repeats, "seconds": seconds, "load_average": loads}


if __name__ == "__main__":
    sys.exit(main())
