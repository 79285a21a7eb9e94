"""Measuring: timings by turns, and the same settings in a fresh process."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from subtune_jax.training.settings import Settings

TURN_SECONDS = 0.2  # what is shorter is run several times a turn
NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # for `fresh`
COMPILING = "/jax/core/compile/backend_compile_duration"  # JAX's event


def by_turns(
    variants: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Seconds a call of each variant, one number a turn.

    The variants alternate, so that whatever else the machine does meets all of them.
    A first call of each is not counted, a second one says how many fill a turn.

    Args:
      variants: functions that return when their work is done.
      repeats: turns, 1 or more.
    """
    calls, seconds = {}, {name: [] for name in variants}
    for name, function in variants.items():
        function()
        once = max(_seconds(function, 1), 1e-9)
        calls[name] = max(1, math.ceil(TURN_SECONDS / once))
    for _ in range(repeats):
        for name, function in variants.items():
            seconds[name].append(_seconds(function, calls[name]))
    return seconds


def ratio(these: Sequence[float], those: Sequence[float]) -> dict[str, float]:
    """Quotients of the same turns: their `median`, `min` and `max`.

    >>> ratio([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    {'median': 1.0, 'min': 0.5, 'max': 1.5}
    """
    return spread([a / b for a, b in zip(these, those, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """`median`, `min` and `max`."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def check(what: str, value: float, limit: float) -> dict[str, Any]:
    """One row of a benchmark's verdict: `value` should be at most `limit`."""
    return {"what": what, "value": value, "limit": limit, "holds": value <= limit}


def fresh(
    module: str, settings: Settings, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What `module`, run on `settings` in a process of its own, prints as JSON.

    Args:
      module: with a main that gives stdin, JSON, to `settings` and prints JSON last.
      settings: of the run.
      environment: added to this process's.

    Raises:
      RuntimeError: the process failed; the message ends with its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(settings),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _seconds(function: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls
