"""The optimiser by block: each trained block is updated by a program of its own.

The rule of an optimiser looks at one leaf at a time; only clipping looks at all, and
comes here as a factor of the gradients.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.optim.optimizer import Optimizer, treatments
from subtune_jax.subtuning import block_programs
from subtune_jax.subtuning.block_programs import Leaves, Programs


class UpdateRule(NamedTuple):
    """How the trained blocks of a trial are updated.

    Attributes:
      optimizer: that is followed.
      steps: of its schedule.
      transform: over `{"block/leaf": values}` of one block, without clipping.
      names: block -> whose name its leaves have there. Blocks that are alike and are
        treated alike go by one name, and share a program.
      unclipped: 1 on the devices, the factor of gradients that are not clipped.
    """

    optimizer: Optimizer
    steps: int
    transform: optax.GradientTransformation
    names: dict[str, str]
    unclipped: jax.Array


def begin(
    programs: Programs,
    optimizer: Optimizer,
    steps: int,
    masters: Mapping[str, Mapping[str, Any]],
) -> tuple[UpdateRule, dict[str, Leaves], dict[str, Any]]:
    """The rule by which an optimiser updates blocks, their values and first moments.

    Args:
      programs: of the network.
      optimizer: that is followed.
      steps: of its schedule.
      masters: block -> float32 masters of its trained leaves.

    Returns:
      The rule; block -> `masters` on the devices; block -> state of the optimiser.
    """
    blocks, names = programs.backbone.blocks, {}
    for block, leaves in masters.items():
        other = names[block] = programs.backbone.alike.get(block, block)
        if other != block:
            own, others = (
                treatments(optimizer, [f"{name}/{path}" for path in leaves], blocks)
                for name in (block, other)
            )
            names[block] = other if own == others else block
    transform = optimizer.rule(steps, blocks)
    moments = {
        block: transform.init(_named(names[block], leaves))
        for block, leaves in masters.items()
    }
    unclipped, values, moments = block_programs.replicate(
        programs, (jnp.ones(()), dict(masters), moments)
    )
    rule = UpdateRule(optimizer, steps, transform, names, unclipped)
    return rule, values, moments


def update(
    programs: Programs,
    rule: UpdateRule,
    values: Mapping[str, Leaves],
    moments: Mapping[str, Any],
    grads: Mapping[str, Leaves],
) -> tuple[dict[str, Leaves], dict[str, Any]]:
    """Values and moments of every block after one update by the clipped gradients.

    Args:
      programs: of the network.
      rule: that is followed.
      values: block -> float32 masters of its trained leaves.
      moments: block -> state of the optimiser, from `begin`.
      grads: like `values`.
    """
    scale = _clipping(programs, rule, grads)
    everywhere = NamedSharding(programs.devices.mesh, PartitionSpec())
    new_values, new_moments = {}, {}
    for block, old in values.items():
        name = rule.names[block]

        def function(old, moments, grads, scale, name=name):
            scaled = {path: scale * leaf for path, leaf in grads.items()}
            masters = _named(name, old)
            updates, moments = rule.transform.update(
                _named(name, scaled), moments, masters
            )
            new: Any = optax.apply_updates(masters, updates)
            moved = {path: new[f"{name}/{path}"] for path in old}
            return jax.lax.with_sharding_constraint((moved, moments), everywhere)

        # An optimiser is its own key: it is made of functions, equal to itself alone.
        key = ("update", rule.optimizer, rule.steps, name)
        new_values[block], new_moments[block] = block_programs.call(
            programs, key, function, old, moments[block], grads[block], scale
        )
    return new_values, new_moments


def _clipping(
    programs: Programs, rule: UpdateRule, grads: Mapping[str, Leaves]
) -> jax.Array:
    """The factor that bounds the global norm of all `grads`."""
    bound = rule.optimizer.clip_norm
    if not bound:
        return rule.unclipped

    def squares(*leaves: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.zeros(()))

    def factor(*parts: jax.Array) -> jax.Array:
        norm = jnp.sqrt(sum(parts, jnp.zeros(())))
        return jnp.where(norm < bound, 1.0, bound / norm)

    parts = [
        block_programs.call(programs, ("squares",), squares, *leaves.values())
        for leaves in grads.values()
    ]
    return block_programs.call(programs, ("clip", bound), factor, *parts)


def _named(name: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a block by path in a network."""
    return {f"{name}/{path}": leaf for path, leaf in leaves.items()}
