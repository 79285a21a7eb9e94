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
from subtune_jax.optim import optimizer, partition
from subtune_jax.study import timing
from subtune_jax.training import assembly, evidence, setup
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup

SIMULATED = 8
SLACK = 1000  # bytes for the loss, the accuracy and the weight of the batch


def run(made: Setup, repeats: int = 1) -> dict[str, Any]:
    """Bytes that the all-reduces of the config's own step move.

    Args:
      made: the setup.
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
        return timing.fresh(__name__, made.settings, environment)
    return here(made)


def here(made: Setup) -> dict[str, Any]:
    """`run` on the devices of this process."""
    selection = made.selector.init(evidence.make(made))
    mode = made.settings["batch_norm"]
    plan = partition.make(
        made.variables, made.backbone.blocks, selection, batch_norm=mode
    )
    changed: Settings = {**made.settings["optimizer"], "accumulate_steps": 1}
    moved = {}
    for mode in ("pmap", "shard_map"):
        own = made._replace(devices=devices.choose(mode))
        ready = assembly.assemble(own, plan, optimizer.make(**changed), 10)
        moved[mode] = flops.all_reduced(ready.trainer.compiled.as_text())
    trained = sum(np.size(value) for value in plan.values.values())
    limit = 4 * trained + SLACK
    return {
        "devices": jax.device_count(),
        "trained": trained,
        "all_reduced": moved,
        "limit": limit,
        "checks": [
            timing.check(f"{mode}: bytes all-reduced", moved[mode], limit)
            for mode in moved
        ],
    }


def main(settings: Settings) -> None:
    """Prints `here` of `settings` as JSON."""
    print(json.dumps(here(setup.prepare(settings))))


if __name__ == "__main__":
    main(json.load(sys.stdin))
