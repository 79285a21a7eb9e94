"""The training step and the prediction step of one device.

Only the trained part of the tree is differentiated, so that back-propagation ends
at the earliest trained block and frozen arrays have no gradient to be reduced,
clipped or logged by accident. Of a leaf that is trained in part only k numbers leave
the place where its gradient arises (`taps`): all that follows sees these. Arrays beside
the leaves (`contracts.Additive`) are values like whole leaves, merged into the leaves
that the network uses: the gradient of such a leaf is formed whole for a moment.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subtune_jax import additive, dense, sparse, taps, trees
from subtune_jax import augment as augmentation
from subtune_jax import inputs as inputs_
from subtune_jax.contracts import Additive, Backbone, Params
from subtune_jax.devices import AXIS
from subtune_jax.sparse import Flat


class Fixed(NamedTuple):
    """What no step changes.

    Attributes:
      frozen: path -> array of every leaf that is not trained, compute type; those that
        arrays are merged into are here as the base has them.
      positions: path -> int32, the selected elements of each partial leaf, in a
        shape of `sparse.arrange`.
      resident: the data set, if it lives on the devices.
    """

    frozen: Flat
    positions: Flat
    resident: Flat


class State(NamedTuple):
    """What a step changes.

    Attributes:
      step: int32, steps done.
      values: float32 masters: whole leaves, added arrays, and k of each partial leaf,
        shaped as its positions.
      partial: path -> the partial leaves with their values in place, compute type.
      opt_state: of the transformation over `values`.
      ema: averaged `values`, or None.
      stats: running statistics of all blocks.
    """

    step: jax.Array
    values: Flat
    partial: Flat
    opt_state: Any
    ema: Flat | None
    stats: Params


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
    """

    backbone: Backbone
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    classes: int
    transform: optax.GradientTransformation
    start: str | None = None
    training: Collection[str] = ()
    augment: augmentation.Augment = augmentation.NONE
    accumulate_steps: int = 1
    ema: float = 0.0
    dtype: Any = jnp.float32
    additive: Additive | None = None


def start(
    recipe: Recipe, params: Flat, stats: Params, values: Flat, positions: Flat
) -> tuple[State, Flat]:
    """The first `State`, and the frozen leaves.

    Args:
      recipe: the static choices.
      params: path -> array, all parameters, float32.
      stats: running statistics.
      values: float32 masters, from `sparse.gather`, and added arrays.
      positions: of the partial leaves.
    """
    rest = {p: _cast(recipe, leaf) for p, leaf in params.items() if p not in values}
    partial = {
        path: sparse.put(_cast(recipe, params[path]), where, values[path])
        for path, where in positions.items()
    }
    state = State(
        step=jnp.zeros((), jnp.int32),
        values=values,
        partial=partial,
        opt_state=recipe.transform.init(values),
        ema=dict(values) if recipe.ema else None,
        stats=stats,
    )
    return state, rest


def make_train(recipe: Recipe) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """The per-device step `(state, fixed, piece) -> (state, metrics)`."""

    def loss_of(whole, partial, stats, fixed, piece):
        inputs, targets = inputs_.labelled(
            fixed.resident, piece, recipe.classes, recipe.augment
        )
        logits, stats = recipe.backbone.apply(
            _network(recipe, {**fixed.frozen, **partial}, whole),
            stats,
            _enter(recipe, inputs),
            training=recipe.training,
            weight=piece["weight"],
            axis_name=AXIS,
            start=recipe.start,
        )
        weight = piece["weight"]
        loss = jnp.sum(weight * recipe.loss(logits, targets))
        sums = {"loss": loss, "accuracy": jnp.sum(weight * _right(logits, targets))}
        return loss, (sums | {"weight": jnp.sum(weight)}, stats)

    def sums_of(state, fixed, piece):
        whole = {p: v for p, v in state.values.items() if p not in fixed.positions}
        rest = state.stats, fixed, piece
        found = taps.gradient(loss_of, whole, state.partial, fixed.positions, *rest)
        _, (sums, stats) = found.output
        return found.whole | found.few, sums, stats

    def train(state, fixed, piece):
        grads, sums, stats = _accumulate(recipe, sums_of, state, fixed, piece)
        grads, sums = jax.lax.psum((grads, sums), AXIS)  # the only reduction
        count = sums.pop("weight")
        grads, metrics = jax.tree.map(lambda x: x / count, (grads, sums))
        metrics["grad_norm"] = optax.tree.norm(grads)
        return _move(recipe, state, fixed, grads, stats), metrics

    return train


def _right(logits, targets):
    """`[B]`: whether the guess is right; of masks, the share of pixels where it is."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return dense.accuracy(logits, targets)
    return jnp.argmax(logits, -1) == jnp.argmax(targets, -1)


def _accumulate(recipe, sums_of, state, fixed, piece):
    """`sums_of` over equal parts of this device's rows, one part alive at a time."""
    parts = recipe.accumulate_steps
    if parts == 1:
        return sums_of(state, fixed, piece)
    split = {k: v.reshape(parts, -1, *v.shape[1:]) for k, v in piece.items()}

    def body(carry, part):
        total, stats = carry
        grads, sums, stats = sums_of(state._replace(stats=stats), fixed, part)
        return (jax.tree.map(jnp.add, total, (grads, sums)), stats), None

    first = {k: v[0] for k, v in split.items()}
    shapes = jax.eval_shape(sums_of, state, fixed, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[:2])
    ((grads, sums), stats), _ = jax.lax.scan(body, (zeros, state.stats), split)
    return grads, sums, stats


def _move(recipe, state, fixed, grads, stats) -> State:
    """The state after one update of the selected values, everything else in place."""
    updates, opt_state = recipe.transform.update(grads, state.opt_state, state.values)
    values: Any = optax.apply_updates(state.values, updates)
    partial = {
        path: sparse.put(leaf, fixed.positions[path], values[path])
        for path, leaf in state.partial.items()
    }
    ema = state.ema
    if ema is not None:
        keep = recipe.ema
        ema = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, ema, values)
    return State(state.step + 1, values, partial, opt_state, ema, stats)


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
        partial = {
            path: sparse.put(state.partial[path], where, values[path])
            for path, where in fixed.positions.items()
        }
        whole = {path: v for path, v in values.items() if path not in partial}
        inputs, _ = inputs_.lookup(fixed.resident, piece)
        outputs, _ = recipe.backbone.apply(
            _network(recipe, {**fixed.frozen, **partial}, whole),
            state.stats,
            _enter(recipe, inputs),
            start=recipe.start,
            stop=stop,
        )
        return None, outputs

    return predict


def _network(recipe, flat: Flat, whole: Flat) -> Params:
    """The parameters as the network uses them, in the type of the computation.

    Args:
      recipe: the static choices.
      flat: frozen and partial leaves, in that type.
      whole: float32 masters of whole leaves, and the added arrays.
    """
    leaves, added = additive.split(recipe.additive, whole)
    flat = flat | {path: _cast(recipe, leaf) for path, leaf in leaves.items()}
    with jax.default_matmul_precision("highest"):  # small, and shipped in float32
        merged = additive.merge(recipe.additive, flat, added)
    return trees.nest(flat | {p: _cast(recipe, leaf) for p, leaf in merged.items()})


def _enter(recipe, inputs: jax.Array) -> jax.Array:
    """Images are normalised; activations of a later block pass as they are."""
    if recipe.start is None:
        inputs = inputs_.normalize(recipe.backbone, inputs)
    return inputs.astype(recipe.dtype)


def _cast(recipe, leaf: jax.Array) -> jax.Array:
    return jnp.asarray(leaf, recipe.dtype)
