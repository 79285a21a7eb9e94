"""The update by blocks: each trained block by a program of its own.

The rule of an optimiser looks at one leaf at a time; only clipping looks at all, and
comes here as a factor of the gradients.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import devices
from subtune_jax.core.program_store import Store
from subtune_jax.core.trees import Flat
from subtune_jax.optim.optimizer import Optimizer, treatments
from subtune_jax.training import block_programs
from subtune_jax.training.block_programs import Leaves
from subtune_jax.training.step import Recipe


class UpdateRule(NamedTuple):
    """How the trained blocks are updated.

    Attributes:
      optimizer: that is followed.
      steps: of its schedule.
      transform: over `{"block/leaf": values}` of one block, without clipping.
      names: block -> whose name its leaves have there. Blocks that are alike and are
        treated alike go by one name, and share a program.
    """

    optimizer: Optimizer
    steps: int
    transform: optax.GradientTransformation
    names: dict[str, str]


def begin(
    store: Store, recipe: Recipe, optimizer: Optimizer, steps: int, masters: Flat
) -> tuple[UpdateRule, dict[str, Any]]:
    """The rule by which an optimiser updates blocks, and block -> its first state.

    Args:
      store: of the programs.
      recipe: of the network.
      optimizer: that is followed.
      steps: of its schedule.
      masters: path -> float32 masters.
    """
    blocks, alike, names = recipe.backbone.blocks, recipe.backbone.alike, {}
    of_blocks = block_programs.by_block(masters)
    for block, leaves in of_blocks.items():
        other = names[block] = alike.get(block, block)
        if other != block:
            own, others = (
                treatments(optimizer, [f"{name}/{path}" for path in leaves], blocks)
                for name in (block, other)
            )
            names[block] = other if own == others else block
    transform = optimizer.rule(steps, blocks)
    states = {b: transform.init(_named(names[b], own)) for b, own in of_blocks.items()}
    rule = UpdateRule(optimizer, steps, transform, names)
    return rule, devices.replicate(store.devices, states)


def update(
    store: Store,
    recipe: Recipe,
    rule: UpdateRule,
    values: Flat,
    states: Mapping[str, Any],
    ema: Flat | None,
    grads: Mapping[str, Leaves],
) -> tuple[Flat, dict[str, Any], Flat | None, dict[str, jax.Array]]:
    """Values, states, averages and `grad_norm` after one update by clipped gradients.

    Args:
      store: of the programs.
      recipe: of the network.
      rule: that is followed.
      values: path -> float32 masters.
      states: block -> state of the optimiser, from `begin`.
      ema: averaged values, or None.
      grads: block -> gradients.
    """
    norm, scale = _clipping(store, rule, grads)
    everywhere = NamedSharding(store.devices.mesh, PartitionSpec())
    averages = {} if ema is None else block_programs.by_block(ema)
    after: tuple[Flat, dict[str, Any], Flat] = ({}, {}, {})
    for block, old in block_programs.by_block(values).items():
        name = rule.names[block]

        def function(old, state, average, grads, scale, name=name):
            scaled = grads
            if scale is not None:
                scaled = {path: scale * leaf for path, leaf in grads.items()}
            masters = _named(name, old)
            updates, state = rule.transform.update(_named(name, scaled), state, masters)
            new: Any = optax.apply_updates(masters, updates)
            moved = {path: new[f"{name}/{path}"] for path in old}
            keep = recipe.ema
            if average is not None:
                average = {p: keep * average[p] + (1 - keep) * moved[p] for p in moved}
            return jax.lax.with_sharding_constraint((moved, state, average), everywhere)

        # An optimiser is its own key: it is made of functions, equal to itself alone.
        key = ("update", rule.optimizer, rule.steps, name)
        arguments = old, states[block], averages.get(block), grads[block], scale
        moved, state, average = block_programs.call(store, key, function, *arguments)
        after[0].update(_named(block, moved))
        after[1][block] = state
        after[2].update(_named(block, average or {}))
    values, states, averages = after
    return values, states, None if ema is None else averages, norm


def _clipping(
    store: Store, rule: UpdateRule, grads: Mapping[str, Leaves]
) -> tuple[dict[str, jax.Array], jax.Array | None]:
    """`grad_norm` of all, and the factor that bounds it; nothing where none does."""
    bound = rule.optimizer.clip_norm
    if not bound:
        return {}, None

    def squares(*leaves: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.zeros(()))

    def factor(*parts: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = jnp.sqrt(sum(parts, jnp.zeros(())))
        return norm, jnp.where(norm < bound, 1.0, bound / norm)

    parts = [
        block_programs.call(store, ("squares",), squares, *leaves.values())
        for leaves in grads.values()
    ]
    norm, scale = block_programs.call(store, ("clip", bound), factor, *parts)
    return {"grad_norm": norm}, scale


def _named(name: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a block by path in a network."""
    return {f"{name}/{path}": leaf for path, leaf in leaves.items()}
