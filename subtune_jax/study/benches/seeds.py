"""What the seeds of a run save when they share compiled programs.

Each of `SEEDS` seeds is trained, evaluated and saved twice, in one process of its own:
`apart`, where every run compiles, and `shared`, where the programs of the run before
are used again. One seed more, of no account, comes first: it pays for what any process
compiles once. The two ways alternate; each has one turn, for a turn takes minutes.

`first`: nothing compiled is kept on disk, as if none of these runs had ever been. But
commands keep what they compile (`process.cache_compilations`), so that of runs apart
only the first compiles and the others trace and read. What sharing saves then is less:
`cached`, reported and not checked, in a process whose folder the first seed has filled.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import subtune_jax.training.run
from subtune_jax.core import process
from subtune_jax.core.program_store import Store
from subtune_jax.study import timing
from subtune_jax.training import workdir
from subtune_jax.training.settings import Settings, with_changes
from subtune_jax.training.setup import Setup

SEEDS = 5
STEPS = 20  # at most
LIMIT = 0.9


def run(setup: Setup, repeats: int = 1) -> dict[str, Any]:
    """Seconds of `SEEDS` runs of the config, of at most `STEPS` steps.

    Args:
      setup: of the config.
      repeats: each way has one turn.

    Returns:
      `first` and `cached`: see `compare`; `checks`.
    """
    del repeats
    first = timing.fresh(__name__, setup.settings, timing.NO_CACHE)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"JAX_COMPILATION_CACHE_DIR": folder}
        cached = timing.fresh(__name__, setup.settings, kept)
    differing = first["differing"] + cached["differing"]
    checks = [
        timing.check("shared by apart, nothing cached", first["ratio"], LIMIT),
        timing.check("runs whose metrics differ", differing, 0),
    ]
    return {"first": first, "cached": cached, "checks": checks}


def compare(settings: Settings) -> dict[str, Any]:
    """Both ways by turns, in this process.

    Returns:
      `seconds`: way -> of each seed's run, from its settings to its result; `ratio` of
      their sums; `differing`: how many seeds have another metric, or another loss in
      any step, one way than the other.
    """
    short = {"train_steps": min(settings["train_steps"], STEPS)}
    # Runs that share programs draw no pictures unless told: so none does, either way.
    short |= {"eval_steps": 0, "save_steps": 0, "report": False}
    programs: dict[str, Store] = {}
    ways: dict[str, dict[str, Store] | None] = {"apart": None, "shared": programs}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    differing, begin = 0, settings["seed"]
    _timed(with_changes(settings, short, {"seed": begin + SEEDS}), None)
    for seed in range(begin, begin + SEEDS):
        own, results = with_changes(settings, short, {"seed": seed}), []
        for way, shared in ways.items():
            taken, result = _timed(own, shared)
            seconds[way].append(taken)
            results.append(result)
        differing += results[0] != results[1]
    ratio = sum(seconds["shared"]) / sum(seconds["apart"])
    return {"seconds": seconds, "ratio": ratio, "differing": differing}


def _timed(settings: Settings, programs: dict[str, Store] | None) -> tuple[float, Any]:
    """Seconds of a run; its metrics and its log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        begin = time.perf_counter()
        path = subtune_jax.training.run.run(settings, folder, programs)
        taken = time.perf_counter() - begin
        metrics = json.loads(path.read_text())["metrics"]
        return taken, (metrics, workdir.read_log(folder))


def main(settings: Settings) -> None:
    """Prints what `compare` measures as JSON."""
    process.keep_memory()
    process.cache_compilations()
    with contextlib.redirect_stdout(sys.stderr):
        figures = compare(settings)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(json.load(sys.stdin))
