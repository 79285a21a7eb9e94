"""The training step and the prediction step of one device.

Only the trained part of the tree is differentiated, so that back-propagation ends
at the earliest trained block and frozen arrays have no gradient to be reduced,
clipped or logged by accident. Of a leaf that is trained in part only k numbers leave
the place where its gradient arises (`sparse_step`): all that follows sees these.
Additive arrays are values like whole leaves, merged into the leaves that the network
uses: the gradient of such a leaf is formed whole for a moment.
A dynamic method changes values of the state and never its shapes: one program serves
the whole run. Where it moves positions, the program has two branches, and the
one that forms whole gradients is taken only in the steps in which the method looks.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subtune_jax.core import trees
from subtune_jax.core.contracts import Backbone, Params
from subtune_jax.core.devices import AXIS
from subtune_jax.core.method import Additive, Seen
from subtune_jax.core.trees import Flat
from subtune_jax.data import dataset
from subtune_jax.data.augment import NONE, Augment
from subtune_jax.optim import dynamic_mask
from subtune_jax.optim.dynamic_mask import Moving, Rule
from subtune_jax.training import loss


class Fixed(NamedTuple):
    """What no step changes.

    Attributes:
      frozen: path -> array of every leaf that is not trained, compute type; those that
        arrays are merged into are here as the base has them.
      positions: path -> int32, the selected elements of each partial leaf, in a
        shape of `trees.arrange`; those that move are in the state.
      resident: the data set, if it lives on the devices.
      key: uint32 `[2]`, data of the random key that all steps' keys are made of, see
        `loss.random_key`; None where nothing is drawn.
    """

    frozen: Flat
    positions: Flat
    resident: Flat
    key: jax.Array | None = None


class State(NamedTuple):
    """What a step changes.

    Attributes:
      step: int32, steps done.
      values: float32 masters: whole leaves, additive arrays, k of each partial leaf,
        shaped as its positions.
      partial: path -> the partial leaves with their values in place, compute type.
      opt_state: of the transformation over `values`.
      ema: averaged `values`, or None.
      stats: running statistics of all blocks.
      moving: dynamic masks, None where there are none.
    """

    step: jax.Array
    values: Flat
    partial: Flat
    opt_state: Any
    ema: Flat | None
    stats: Params
    moving: Moving | None = None


class Recipe(NamedTuple):
    """The static choices of a step.

    Attributes:
      backbone: the network.
      loss: (logits `[B, C]`, targets `[B, C]`) -> `[B]`; see `Task` for masks.
      classes: C.
      transform: over `values`.
      start: the block the inputs enter; None for images at the first.
      training: blocks that use and update batch statistics.
      augment: of the images.
      accumulate_steps: pieces each device processes its rows in.
      ema: decay, 0 for none.
      dtype: of the computation.
      additive: the arrays among `values` that are no leaves, None for nothing.
      rule: how masks move, and what the method adds to the loss; None for neither.
    """

    backbone: Backbone
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    classes: int
    transform: optax.GradientTransformation
    start: str | None = None
    training: Collection[str] = ()
    augment: Augment = NONE
    accumulate_steps: int = 1
    ema: float = 0.0
    dtype: Any = jnp.float32
    additive: Additive | None = None
    rule: Rule | None = None


def start(
    recipe: Recipe,
    params: Flat,
    stats: Params,
    values: Flat,
    positions: Flat,
    moving: Moving | None = None,
) -> tuple[State, Flat]:
    """The first `State`, and the frozen leaves.

    Args:
      recipe: the static choices.
      params: path -> array, all parameters, float32.
      stats: running statistics.
      values: float32 masters, from `trees.gather`, and additive arrays.
      positions: of the partial leaves.
      moving: dynamic masks, from `dynamic_mask.begin`.
    """
    places = positions | loss.moving_positions(moving)
    leaves = {
        path: jnp.asarray(leaf, recipe.dtype)
        for path, leaf in params.items()
        if path in places or path not in values
    }
    partial = {p: trees.put(leaves[p], at, values[p]) for p, at in places.items()}
    rest = {path: leaf for path, leaf in leaves.items() if path not in values}
    state = State(
        step=jnp.zeros((), jnp.int32),
        values=values,
        partial=partial,
        opt_state=recipe.transform.init(values),
        ema=dict(values) if recipe.ema else None,
        stats=stats,
        moving=moving,
    )
    return state, rest


def make_train(recipe: Recipe) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """The per-device step `(state, fixed, piece) -> (state, metrics)`."""

    def step(look, state, fixed, piece):
        sums_of = functools.partial(loss.sums, recipe, look)
        if recipe.accumulate_steps > 1:
            sums_of = functools.partial(_accumulated, recipe.accumulate_steps, sums_of)
        grads, sums, stats = sums_of(state, fixed, piece)
        grads, sums = jax.lax.psum((grads, sums), AXIS)  # the only reduction
        count = sums.pop("weight")
        grads, metrics = jax.tree.map(lambda x: x / count, (grads, sums))
        state, more = _move(recipe, look, state, fixed, grads, stats)
        return state, metrics | more

    def train(state, fixed, piece):
        rule = recipe.rule
        if rule is None or not state.moving.base:
            return step(False, state, fixed, piece)
        looks = rule.selector.looks(state.step)
        branches = functools.partial(step, True), functools.partial(step, False)
        return jax.lax.cond(looks, *branches, state, fixed, piece)

    return train


def _accumulated(parts, sums_of, state, fixed, piece):
    """`sums_of` over equal parts of this device's rows, one part alive at a time."""
    split = {k: v.reshape(parts, -1, *v.shape[1:]) for k, v in piece.items()}

    def body(carry, numbered):
        total, stats = carry
        grads, sums, stats = sums_of(state._replace(stats=stats), fixed, *numbered)
        return (jax.tree.map(jnp.add, total, (grads, sums)), stats), None

    first = {k: v[0] for k, v in split.items()}
    shapes = jax.eval_shape(sums_of, state, fixed, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[:2])
    numbered = split, jnp.arange(parts)
    ((grads, sums), stats), _ = jax.lax.scan(body, (zeros, state.stats), numbered)
    return grads, sums, stats


def _move(recipe, look, state, fixed, grads, stats) -> tuple[State, dict[str, Any]]:
    """The state after one update of the selected values, everything else in place."""
    values, opt_state, moving = state.values, state.opt_state, state.moving
    leaves: Flat = {}
    more: dict[str, Any] = {}
    if recipe.rule is None or (moving.base and not look):
        values, opt_state = _apply(recipe, grads, opt_state, values)
    else:
        here = {path: state.partial[path] for path in moving.base}
        seen = Seen(state.step, values, grads, here, moving.base)
        given = recipe.rule, seen, opt_state, moving
        if look:
            values, opt_state, moving, grads, leaves = dynamic_mask.relocate(*given)
            values, opt_state = _apply(recipe, grads, opt_state, values)
        else:
            step = dynamic_mask.update(recipe.transform, *given)
            updates, opt_state, moving, more = step
            values = optax.apply_updates(values, updates)
    leaves = state.partial | leaves
    positions = fixed.positions | loss.moving_positions(moving)
    partial = {p: trees.put(leaves[p], positions[p], values[p]) for p in leaves}
    ema = state.ema
    if ema is not None:
        keep = recipe.ema
        ema = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, ema, values)
    after = State(state.step + 1, values, partial, opt_state, ema, stats, moving)
    return after, {"grad_norm": optax.tree.norm(grads), **more}


def _apply(recipe, grads, opt_state, values) -> tuple[Any, Any]:
    updates, opt_state = recipe.transform.update(grads, opt_state, values)
    return optax.apply_updates(values, updates), opt_state


def make_predict(
    recipe: Recipe, *, stop: str | None = None
) -> Callable[..., tuple[None, jax.Array]]:
    """The per-device `(state, fixed, piece) -> (None, outputs [rows, ...])`.

    Args:
      recipe: the static choices; augmentation is left out.
      stop: the block to stop before; None for logits.
    """

    def predict(state, fixed, piece):
        values = state.values if state.ema is None else state.ema
        positions = fixed.positions | loss.moving_positions(state.moving)
        partial = {
            path: trees.put(state.partial[path], where, values[path])
            for path, where in positions.items()
        }
        whole = {path: v for path, v in values.items() if path not in partial}
        inputs, _ = dataset.lookup(fixed.resident, piece)
        outputs, _ = recipe.backbone.apply(
            loss.network(recipe, {**fixed.frozen, **partial}, whole),
            state.stats,
            loss.enter(recipe, inputs),
            start=recipe.start,
            stop=stop,
        )
        return None, outputs

    return predict
