"""What a second start compiles: the training command twice, in fresh processes."""

import collections
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import subtune_jax.training.run
from subtune_jax.core import process
from subtune_jax.study import timing
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup

REQUESTS = "/jax/compilation_cache/compile_requests_use_cache"
HITS = "/jax/compilation_cache/cache_hits"
STEPS = 2  # of the probe, if there is one, and of training


def run(setup: Setup, repeats: int = 1) -> dict[str, Any]:
    """Programs compiled by two starts that share one cache of compilations.

    Args:
      setup: of the config.
      repeats: each start happens once.

    Returns:
      `first` and `second`: `programs` asked for, `compiled` ones (not in the cache),
      `compile_seconds` (or reading what is cached) and `seconds` from setup to
      result; `checks`.
    """
    del repeats
    settings: Settings = {**setup.settings, "train_steps": STEPS, "eval_steps": 1}
    options = settings["optimizer"]
    probe = min(options["probe_steps"], STEPS)
    settings["optimizer"] = {**options, "probe_steps": probe}
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": folder}
        first, second = (timing.fresh(__name__, settings, cache) for _ in range(2))
    what = "programs that a second start compiles"
    checks = [timing.check(what, second["compiled"], 0)]
    return {"first": first, "second": second, "checks": checks}


def main(settings: Settings) -> None:
    """Trains, evaluates and saves; prints what was compiled as JSON."""
    counts: collections.Counter[str] = collections.Counter()
    taken: collections.Counter[str] = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: taken.update({event: duration_secs})
    )
    process.cache_compilations()
    begin = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),
    ):
        subtune_jax.training.run.run(settings, Path(folder))
    figures = {
        "programs": counts[REQUESTS],
        "compiled": counts[REQUESTS] - counts[HITS],
        "compile_seconds": taken[timing.COMPILING],
        "seconds": time.perf_counter() - begin,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(json.load(sys.stdin))
