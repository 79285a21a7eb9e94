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
from subtune_jax.optim import optimizer, partition
from subtune_jax.optim.partition import Plan
from subtune_jax.selection import masks
from subtune_jax.study import timing
from subtune_jax.training import assembly, setup
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup

LIMIT = 1.10


def run(made: Setup, repeats: int = 1) -> dict[str, Any]:
    """Operations of the first, the middle and the last block below the head.

    Args:
      made: the setup.
      repeats: nothing is timed.

    Returns:
      `blocks`: name -> `needed` (forward and backward of a batch), `counted` and
      their `ratio`; `checks`.
    """
    del repeats
    inner = made.backbone.blocks[:-1]
    chosen = dict.fromkeys((inner[0], inner[len(inner) // 2], inner[-1]))
    blocks = {block: block_cost(made, block) for block in chosen}
    checks = [
        timing.check(f"{block}: operations, counted by needed", row["ratio"], LIMIT)
        for block, row in blocks.items()
    ]
    return {"blocks": blocks, "checks": checks}


def block_cost(made: Setup, block: str) -> dict[str, Any]:
    """`needed`, `counted` and `ratio` of a step that trains `block` and the head."""
    settings: Settings = {**made.settings, "trunk_cache": False}
    clip = settings["optimizer"]["clip_norm"] or 1.0
    # XLA counts the body of the loop over pieces once.
    changed: Settings = {
        **settings["optimizer"],
        "clip_norm": clip,
        "accumulate_steps": 1,
    }
    made = made._replace(settings=settings, augment=augment.NONE)
    mask = masks.from_blocks(made.variables.params, [block])
    plan = partition.make(
        made.variables,
        made.backbone.blocks,
        Selection(mask),
        batch_norm=settings["batch_norm"],
    )
    ready = assembly.assemble(made, plan, optimizer.make(**changed), 10)
    needed = needs(made, plan)
    counted = ready.trainer.flops
    return {
        "needed": needed._asdict(),
        "counted": counted,
        "ratio": counted / (needed.forward + needed.backward),
    }


def needs(made: Setup, plan: Plan) -> flops.Operations:
    """Operations that the logits of a padded batch and their gradient need."""
    flat = trees.flatten(made.variables.params)
    frozen = {path: leaf for path, leaf in flat.items() if path not in plan.values}
    rows = setup.batch_rows(made).padded
    images = jax.ShapeDtypeStruct((rows, *made.backbone.input_shape), jnp.float32)

    def logits(trained, frozen, images):
        params = trees.nest({**frozen, **trained})
        images = images.astype(setup.dtype(made))
        stats, training = made.variables.stats, plan.training
        return made.backbone.apply(params, stats, images, training=training)[0]

    return flops.needed(logits, plan.values, frozen, images)
