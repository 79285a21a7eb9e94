"""Runs whose one step is taken again and again: what benchmarks of steps share."""

from collections.abc import Callable, MutableMapping
from typing import Any

import jax

from subtune_jax.core import devices
from subtune_jax.core.method import Selection
from subtune_jax.optim import partition
from subtune_jax.optim.partition import Partition
from subtune_jax.selection import reach
from subtune_jax.training import evidence, program
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

MEMORY = ("argument", "output", "alias", "temp")  # what XLA tells of a program
# Arguments of `random` for as many elements as GPS trains, in places that cost as much.
AS_GPS: dict[str, Any] = {"count": 1, "extras": reach.BIASES}


def plan_of(
    setup: Setup, selection: Selection | None = None, *, moves: bool = False
) -> Partition:
    """The partition of `selection`, or of the config's method.

    Args:
      setup: its variables are parted.
      selection: None for that of the config's method.
      moves: whether its mask is dynamic.
    """
    if selection is None:
        selection = setup.selector.init(evidence.make(setup))
    return partition.make(
        setup.variables,
        setup.backbone.blocks,
        selection,
        batch_norm=setup.settings["batch_norm"],
        moves=moves,
    )


def assemble(setup: Setup, plan: Partition, *, cached: bool) -> Program:
    """A run of `plan` before its first step; `cached`: with the trunk computed once."""
    setup = setup._replace(settings={**setup.settings, "trunk_cache": cached})
    steps = setup.settings["train_steps"]
    return program.build(setup, plan, setup.optimizer, steps)


def stepping(
    run: Program, states: MutableMapping[str, State], name: str
) -> Callable[[], None]:
    """A call takes one more step from `states[name]`, always on the first batch."""
    states[name] = run.state
    piece = devices.spread(run.devices, next(run.feed.pieces(0, 1)))

    def step() -> None:
        after = run.first_step(states[name], run.fixed, piece)
        states[name], _ = jax.block_until_ready(after)

    return step


def sizes(run: Program) -> dict[str, int]:
    """Bytes of the compiled step's memory, by what they are for."""
    memory: Any = run.first_step.memory_analysis()
    return {what: getattr(memory, f"{what}_size_in_bytes") for what in MEMORY}
