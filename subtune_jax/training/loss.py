"""What a step minimises: the loss of one device's rows, and its gradient.

Functions here are of `step.Recipe`, `step.State` and `step.Fixed`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax.core import trees
from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import AXIS
from subtune_jax.core.method import Probe
from subtune_jax.core.trees import Flat
from subtune_jax.data import dataset, dense
from subtune_jax.optim import additive
from subtune_jax.optim.dynamic_mask import Moving
from subtune_jax.sparse_step import interpreter

# On a CPU three times as fast as "rbg", where bits are not thrown away.
RANDOM = "threefry2x32"


def random_key(seed: int) -> jax.Array:
    """`Fixed.key` of a run."""
    return jax.random.key_data(jax.random.key(seed, impl=RANDOM))


def step_key(key: jax.Array, *numbers: Any) -> jax.Array:
    """Data of the key of a step, of one device and of one part of its rows."""
    wrapped = jax.random.wrap_key_data(key, impl=RANDOM)
    for number in numbers:
        wrapped = jax.random.fold_in(wrapped, number)
    return jax.random.key_data(wrapped)


def moving_positions(moving: Moving | None) -> Flat:
    """Path -> positions of the leaves that move as such: those that keep a base."""
    return {} if moving is None else {path: moving.mask[path] for path in moving.base}


def sums(recipe, look, state, fixed, piece, part=0):
    """Gradients, sums over rows, and statistics, of one part of this device's rows.

    With `look` the gradients of leaves that move as positions are those of the leaves.
    """
    key = None
    if fixed.key is not None:
        numbers = state.step, jax.lax.axis_index(AXIS), part
        data = step_key(fixed.key, *numbers)
        key = jax.random.wrap_key_data(data, impl=RANDOM)
    positions = fixed.positions
    moving = moving_positions(state.moving)
    few = positions if look else {**positions, **moving}
    whole = {p: v for p, v in state.values.items() if p not in positions | moving}
    partial = {p: x for p, x in state.partial.items() if p in few}
    if look:
        whole |= {path: state.partial[path] for path in moving}
    loss_of = functools.partial(_loss, recipe)
    rest = state, fixed, piece, key
    found = interpreter.gradient(loss_of, whole, partial, few, *rest)
    _, (sums, stats) = found.output
    return found.whole | found.few, sums, stats


def _loss(recipe, whole, partial, state, fixed, piece, key):
    """The loss summed over rows; (sums over rows, statistics)."""
    inputs, targets = dataset.labelled(
        fixed.resident, piece, recipe.classes, recipe.augment
    )
    x, weight = enter(recipe, inputs), piece["weight"]
    used = whole
    memory = None if state.moving is None else state.moving.memory
    if recipe.rule is not None and recipe.rule.selector.view is not None:
        used = whole | recipe.rule.selector.view(whole, memory)
    params = network(recipe, {**fixed.frozen, **partial}, used)
    logits, stats = recipe.backbone.apply(
        params,
        state.stats,
        x,
        training=recipe.training,
        weight=weight,
        axis_name=AXIS,
        start=recipe.start,
        key=key if recipe.backbone.drops else None,
    )
    loss = jnp.sum(weight * recipe.loss(logits, targets))
    sums = {"loss": loss, "weight": jnp.sum(weight)}
    if recipe.classes > 1:
        sums["accuracy"] = jnp.sum(weight * right(logits, targets))
    if recipe.rule is not None and recipe.rule.selector.penalty is not None:
        probe = _probe(recipe, state, (params, whole, memory), key, x, weight)
        sums["penalty"] = sums["weight"] * recipe.rule.selector.penalty(probe)
        loss = loss + sums["penalty"]
    return loss, (sums, stats)


def _probe(recipe, state, known, key, x, weight) -> Probe:
    params, values, memory = known

    def apply(params, x, start, stop):
        given = params, state.stats, x
        return recipe.backbone.apply(*given, start=start, stop=stop)[0]

    first = recipe.start or recipe.backbone.blocks[0]
    return Probe(params, values, memory, state.step, key, x, weight, apply, first)


def right(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """`[B]`: whether the guess is right; of masks, the share of pixels where it is."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return dense.accuracy(logits, targets)
    return jnp.argmax(logits, -1) == jnp.argmax(targets, -1)


def network(recipe, flat: Flat, whole: Flat) -> Params:
    """The parameters as the network uses them, in the type of the computation.

    Args:
      recipe: the static choices.
      flat: frozen and partial leaves, in that type.
      whole: float32 masters of whole leaves, and the additive arrays.
    """
    if recipe.additive is None:
        flat = flat | {path: leaf.astype(recipe.dtype) for path, leaf in whole.items()}
    else:
        leaves, added = additive.split(recipe.additive, whole)
        flat = flat | {path: leaf.astype(recipe.dtype) for path, leaf in leaves.items()}
        with jax.default_matmul_precision("highest"):  # small, and shipped in float32
            merged = additive.merge(recipe.additive, flat, added)
        flat |= {path: leaf.astype(recipe.dtype) for path, leaf in merged.items()}
    return trees.nest(flat)


def enter(recipe, inputs: jax.Array) -> jax.Array:
    """Images are normalised; activations of a later block pass as they are."""
    if recipe.start is None:
        return dataset.enter(recipe.backbone, inputs, recipe.dtype)
    return inputs.astype(recipe.dtype)
