"""What crosses the network in a training step, read from the compiled program.

On one device it runs in a process of its own, with eight simulated ones.
"""

import json
import os
import sys
from typing import Any

import jax
import numpy as np

from subtune_jax.core import devices, flops
from subtune_jax.optim import optimizer
from subtune_jax.study import step_runs, timing
from subtune_jax.training import program
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup, prepare

SIMULATED = 8
SLACK = 1000  # bytes for the loss, the accuracy and the weight of the batch


def run(setup: Setup, repeats: int = 1) -> dict[str, Any]:
    """Bytes that the all-reduces of the config's own step move.

    Args:
      setup: of the config.
      repeats: nothing is timed.

    Returns:
      `devices`, `trained` values k, `all_reduced` bytes under each mode, `limit`
      4 k + 1000, `checks`.
    """
    del repeats
    if jax.device_count() == 1:
        flag = f"--xla_force_host_platform_device_count={SIMULATED}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
        environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        return timing.fresh(__name__, setup.settings, environment)
    return here(setup)


def here(setup: Setup) -> dict[str, Any]:
    """`run` on the devices of this process."""
    plan = step_runs.plan_of(setup)
    options: Settings = {**setup.settings["optimizer"], "accumulate_steps": 1}
    all_reduced = {}
    for mode in ("pmap", "shard_map"):
        own = setup._replace(devices=devices.choose(mode))
        form = program.build(own, plan, optimizer.make(**options), 10)
        all_reduced[mode] = flops.all_reduced(form.first_step.as_text())
    trained = sum(np.size(value) for value in plan.values.values())
    limit = 4 * trained + SLACK
    return {
        "devices": jax.device_count(),
        "trained": trained,
        "all_reduced": all_reduced,
        "limit": limit,
        "checks": [
            timing.check(f"{mode}: bytes all-reduced", moved, limit)
            for mode, moved in all_reduced.items()
        ],
    }


def main(settings: Settings) -> None:
    """Prints `here` of `settings` as JSON."""
    print(json.dumps(here(prepare(settings))))


if __name__ == "__main__":
    main(json.load(sys.stdin))
