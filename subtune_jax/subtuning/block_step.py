"""The step of a trial: block VJPs forward and backward, then an update of each block.

A step that trains some blocks runs forward from the first of them, keeping the
pullback of each, which takes a gradient back through the block, and then backward.
Blocks below the first trained one are not run; weights of frozen blocks get no
gradient. The rule of an optimiser looks at one leaf at a time, so each block is updated
by a program of its own; only clipping looks at all, and is a factor of the gradients.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core.contracts import Params
from subtune_jax.optim import optimizer
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import block_programs
from subtune_jax.subtuning.block_programs import BlockVariables, Leaves, Programs


class TrialState(NamedTuple):
    """A trial under way.

    Attributes:
      step: steps done.
      values: block -> float32 masters of its trained leaves, by path in the block.
      moments: block -> state of the optimiser.
      stats: block -> running statistics, of the blocks that update theirs.
    """

    step: int
    values: dict[str, Leaves]
    moments: dict[str, Any]
    stats: dict[str, Params]


class UpdateRule(NamedTuple):
    """How the trained blocks of a trial are updated.

    Attributes:
      transform: over `{"block/leaf": values}` of one block.
      names: block -> whose name its leaves have in `transform`. Blocks that are alike
        and are treated alike go by one name, and share a program.
      key: tells the rule from others. An optimiser is its own key: it is made of
        functions, equal to itself alone.
      clip_norm: bound on the global norm of the gradient; 0 for none.
      whole: the factor 1 of gradients that are not clipped, on the devices.
    """

    transform: optax.GradientTransformation
    names: dict[str, str]
    key: tuple[Optimizer, int]
    clip_norm: float
    whole: jax.Array


def update_rule(
    programs: Programs, chosen: Optimizer, steps: int, values: Mapping[str, Leaves]
) -> UpdateRule:
    """The rule of an optimiser, with the schedule of `steps`, for trained `values`."""
    blocks, alike, names = programs.backbone.blocks, programs.backbone.alike, {}
    paths: list[str] = []
    for block, leaves in values.items():
        for name in (block, alike.get(block, block)):
            paths += [f"{name}/{path}" for path in leaves]
    treated = dict(zip(paths, optimizer.treatments(chosen, paths, blocks), strict=True))
    for block, leaves in values.items():
        other = alike.get(block, block)
        same = all(treated[f"{block}/{p}"] == treated[f"{other}/{p}"] for p in leaves)
        names[block] = other if same else block
    whole = block_programs.replicate(programs, jnp.ones(()))
    transform = chosen.rule(steps, blocks)
    return UpdateRule(transform, names, (chosen, steps), chosen.clip_norm, whole)


def first_state(
    programs: Programs,
    rule: UpdateRule,
    values: dict[str, Leaves],
    stats: dict[str, Params],
) -> TrialState:
    """The state before the first step; `values` and `stats` are those of the state."""
    moments = {
        block: rule.transform.init(_named(rule.names[block], leaves))
        for block, leaves in values.items()
    }
    return TrialState(0, values, block_programs.replicate(programs, moments), stats)


def step(
    programs: Programs,
    rule: UpdateRule,
    network: Mapping[str, BlockVariables],
    state: TrialState,
    batch: tuple[Any, Any, Any],
    *,
    normalise: bool,
) -> TrialState:
    """The state after one update by a batch; arguments as those of `gradient`."""
    found = gradient(
        programs, network, state.values, state.stats, batch, normalise=normalise
    )
    scale = _clipping(programs, rule, found.grads)
    everywhere = NamedSharding(programs.devices.mesh, PartitionSpec())
    values, moments = {}, {}
    for block, old in state.values.items():
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

        arguments = (old, state.moments[block], found.grads[block], scale)
        values[block], moments[block] = block_programs.call(
            programs, ("update", *rule.key, name), function, *arguments
        )
    return TrialState(state.step + 1, values, moments, found.stats)


class Gradient(NamedTuple):
    """The gradient of a batch.

    Attributes:
      loss: weighted mean over the batch.
      grads: block -> gradients of its trained leaves, the last block first.
      stats: block -> running statistics after the batch, as in `TrialState`.
    """

    loss: jax.Array
    grads: dict[str, Leaves]
    stats: dict[str, Params]


def gradient(
    programs: Programs,
    network: Mapping[str, BlockVariables],
    values: Mapping[str, Leaves],
    stats: Mapping[str, Params],
    batch: tuple[Any, Any, Any],
    *,
    normalise: bool,
) -> Gradient:
    """The gradient of a batch by the trained leaves.

    Args:
      programs: of the network.
      network: block -> what it computes with, but for what the next two say.
      values: as in `TrialState`.
      stats: likewise.
      batch: what enters the first trained block, targets `[B, C]` and weights `[B]`;
        the last two may still be on the host.
      normalise: whether trained blocks normalise by the statistics of the batch.
    """
    order, (x, *rest) = programs.backbone.blocks, batch
    targets, weight = block_programs.spread(programs, rest)
    path = order[min(order.index(block) for block in values) :]
    pullbacks, after = [], dict(stats)
    for block in path:
        leaves, own = values.get(block, {}), network[block]
        own = own._replace(stats=stats.get(block, own.stats))
        learns = bool(leaves and own.stats) and normalise
        x, pullback, learnt = block_programs.vjp(
            programs, block, leaves, own, x,
            through=block != path[0], weight=weight if learns else None,
        )  # fmt: skip
        pullbacks.append(pullback)
        if learns:
            after[block] = learnt

    def mean(logits: jax.Array, targets: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(weight * programs.loss(logits, targets)) / jnp.sum(weight)

    function = jax.value_and_grad(mean)
    loss, dy = block_programs.call(programs, ("loss",), function, x, targets, weight)
    grads: dict[str, Leaves] = {}
    for block, pullback in zip(reversed(path), reversed(pullbacks), strict=True):
        parts = pullback(dy)
        dy = parts[-1]
        if block in values:
            grads[block] = parts[0]
    return Gradient(loss, grads, after)


def _clipping(
    programs: Programs, rule: UpdateRule, grads: Mapping[str, Leaves]
) -> jax.Array:
    """The factor that bounds the global norm of all `grads`."""
    if not rule.clip_norm:
        return rule.whole

    def squares(*leaves: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.zeros(()))

    def factor(*parts: jax.Array) -> jax.Array:
        norm = jnp.sqrt(sum(parts, jnp.zeros(())))
        return jnp.where(norm < rule.clip_norm, 1.0, rule.clip_norm / norm)

    parts = [
        block_programs.call(programs, ("squares",), squares, *leaves.values())
        for leaves in grads.values()
    ]
    return block_programs.call(programs, ("clip", rule.clip_norm), factor, *parts)


def _named(name: str, leaves: Leaves) -> Leaves:
    """Leaves of a block by path in a network."""
    return {f"{name}/{path}": leaf for path, leaf in leaves.items()}
