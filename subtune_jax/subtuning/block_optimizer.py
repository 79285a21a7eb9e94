"""The optimiser in pieces: each block is updated by a program of its own.

The rule of an optimiser looks at one leaf at a time; only clipping looks at all, and
comes here as a factor of the gradients.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import block_programs
from subtune_jax.subtuning.block_programs import Leaves, Pieces

Rule = tuple[Optimizer, int]  # and the steps of its schedule


def begin(pieces: Pieces, rule: Rule, block: str, values: Leaves) -> Any:
    """The optimiser's first state for the trained leaves of a block."""
    name, transform = _rule(pieces, rule, block, values)
    flat = {f"{name}/{path}": leaf for path, leaf in values.items()}
    return block_programs.replicate(pieces, transform.init(flat))


def clip(pieces: Pieces, grads: Mapping[str, Leaves], norm: float) -> jax.Array:
    """The factor that bounds the global norm of all `grads`; 1 where `norm` is 0."""
    if not norm:
        return block_programs.replicate(pieces, jnp.ones(()))
    parts = [_squares(pieces, leaves) for leaves in grads.values()]

    def function(*parts: jax.Array) -> jax.Array:
        found = jnp.sqrt(sum(parts, jnp.zeros(())))
        return jnp.where(found < norm, 1.0, norm / found)

    return block_programs.call(pieces, ("clip", norm), function, *parts)


def update(
    pieces: Pieces,
    rule: Rule,
    block: str,
    values: Leaves,
    state: Any,
    grads: Leaves,
    scale: jax.Array,
) -> tuple[Leaves, Any]:
    """Values and optimiser state of a block after one update by `scale * grads`.

    Args:
      pieces: the network.
      rule: that is followed.
      block: its name.
      values: float32 masters of its trained leaves.
      state: of the rule, from `begin`.
      grads: like `values`.
      scale: of the gradients: clipping by the global norm happens outside.
    """
    name, transform = _rule(pieces, rule, block, values)

    def function(values, state, grads, scale):
        paths = {f"{name}/{path}": scale * leaf for path, leaf in grads.items()}
        old = {f"{name}/{path}": leaf for path, leaf in values.items()}
        updates, state = transform.update(paths, state, old)
        new: Any = optax.apply_updates(old, updates)
        moved = {path: new[f"{name}/{path}"] for path in values}
        return _everywhere(pieces, (moved, state))

    given = (values, state, grads, scale)
    # An optimiser is its own key: it is made of functions, equal to itself alone.
    return block_programs.call(pieces, ("update", *rule, name), function, *given)


def _squares(pieces: Pieces, grads: Leaves) -> jax.Array:
    """Sum of the squared elements of all leaves."""

    def function(*leaves: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.zeros(()))

    return block_programs.call(pieces, ("squares",), function, *grads.values())


def _rule(
    pieces: Pieces, rule: Rule, block: str, values: Leaves
) -> tuple[str, optax.GradientTransformation]:
    """The name that a block's leaves go by, and the rule: alike blocks share both."""
    blocks, other = pieces.backbone.blocks, block_programs.representative(pieces, block)
    optimizer, steps = rule

    def treated(name: str) -> list[tuple[bool, float]]:
        return [optimizer.treatment(f"{name}/{path}", blocks) for path in values]

    name = other if treated(block) == treated(other) else block
    return name, optimizer.rule(steps, blocks)


def _everywhere(pieces: Pieces, tree: Any) -> Any:
    whole = block_programs.sharding(pieces, PartitionSpec())
    return jax.lax.with_sharding_constraint(tree, whole)
