"""What training one block costs, in floating-point operations that it needs.

Counted is the whole training step as XLA compiled it: metrics, clipping and the
optimiser included, the head trained as well, nothing cached below the block.
"""

from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax.core import flops, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import augment
from subtune_jax.optim import optimizer
from subtune_jax.optim.partition import Partition
from subtune_jax.selection import masks
from subtune_jax.study import step_runs, timing
from subtune_jax.training import program
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup, batch_rows, dtype

LIMIT = 1.10


def run(setup: Setup, repeats: int = 1) -> dict[str, Any]:
    """Operations of the first, the middle and the last block below the head.

    Args:
      setup: its network and optimiser.
      repeats: nothing is timed.

    Returns:
      `blocks`: name -> `needed` (forward and backward of a batch), `counted` and
      their `ratio`; `checks`.
    """
    del repeats
    inner = setup.backbone.blocks[:-1]
    three = dict.fromkeys((inner[0], inner[len(inner) // 2], inner[-1]))
    blocks = {block: block_cost(setup, block) for block in three}
    checks = [
        timing.check(f"{block}: operations, counted by needed", row["ratio"], LIMIT)
        for block, row in blocks.items()
    ]
    return {"blocks": blocks, "checks": checks}


def block_cost(setup: Setup, block: str) -> dict[str, Any]:
    """`needed`, `counted` and `ratio` of a step that trains `block` and the head."""
    settings: Settings = {**setup.settings, "trunk_cache": False}
    clip = settings["optimizer"]["clip_norm"] or 1.0
    # XLA counts the body of the loop over pieces once.
    options: Settings = {
        **settings["optimizer"],
        "clip_norm": clip,
        "accumulate_steps": 1,
    }
    setup = setup._replace(settings=settings, augment=augment.NONE)
    mask = masks.from_blocks(setup.variables.params, [block])
    plan = step_runs.plan_of(setup, Selection(mask))
    run = program.build(setup, plan, optimizer.make(**options), 10)
    needed = needs(setup, plan)
    counted = run.flops
    return {
        "needed": needed._asdict(),
        "counted": counted,
        "ratio": counted / (needed.forward + needed.backward),
    }


def needs(setup: Setup, plan: Partition) -> flops.Operations:
    """Operations that the logits of a padded batch and their gradient need."""
    flat = trees.flatten(setup.variables.params)
    frozen = {path: leaf for path, leaf in flat.items() if path not in plan.values}
    rows = batch_rows(setup).padded
    images = jax.ShapeDtypeStruct((rows, *setup.backbone.input_shape), jnp.float32)

    def logits(trained, frozen, images):
        params = trees.nest({**frozen, **trained})
        images = images.astype(dtype(setup))
        stats, training = setup.variables.stats, plan.training
        return setup.backbone.apply(params, stats, images, training=training)[0]

    return flops.needed(logits, plan.values, frozen, images)
