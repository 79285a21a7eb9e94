"""Dynamic masks: what they are in the state of a step, and what each step does.

Two kinds (`method.Selection`). Leaves in a method's reach are trained whole, and
booleans say what of them moves now. Leaves that move as positions hold k values, and
the positions change in the steps in which the method looks.

Which semantics is a choice with a name:

* `mask_update`: nothing outside the mask moves. Gradients outside it are zero before
  the optimiser, its updates are dropped there after it, and its moments rest there.
* `mask_gradient`: as the released code of DPS and Child-Tuning: gradients outside the
  mask are zero, and the optimiser does what it does: momentum and decay move what is
  outside. The metric `leak` says by how much, the norm of the updates there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from subtune_jax.core import trees
from subtune_jax.core.method import Seen, Selection, Selector
from subtune_jax.core.trees import Flat
from subtune_jax.optim import moments

SEMANTICS = ("mask_update", "mask_gradient")


class Moving(NamedTuple):
    """The part of a step's state that a moving method owns.

    Attributes:
      mask: path -> booleans, or positions int32 `[k]`; see `method.Selection`.
      memory: of the method.
      ever: path -> booleans of the leaf's shape: was it ever selected? None of a mask
        that says one thing for the whole leaf.
      base: path -> `[k]` of leaves that move as positions, see `method.Seen`.
    """

    mask: Flat
    memory: Any
    ever: Flat
    base: Flat


class Rule(NamedTuple):
    """How masks move in a run; static.

    Attributes:
      selector: the method.
      semantics: one of `SEMANTICS`.
      policy: one of `moments.POLICIES`.
      decays: b1 and b2 of Adam.
    """

    selector: Selector
    semantics: str = "mask_update"
    policy: str = "keep"
    decays: tuple[float, float] = (0.9, 0.999)


class Step(NamedTuple):
    """What `update` returns: what is added to the values, and parts of the state."""

    updates: Flat
    opt_state: Any
    moving: Moving
    metrics: dict[str, jax.Array]


def update(
    transform: optax.GradientTransformation,
    rule: Rule,
    seen: Seen,
    opt_state: Any,
    moving: Moving,
) -> Step:
    """One update of values whose masks are booleans."""
    selection = Selection(moving.mask, memory=moving.memory)
    moved = rule.selector.update(seen, selection)
    mask = moved.selection.mask
    grads = {**seen.grads, **(moved.grads or {})}
    grads |= {p: _within(mask[p], grads[p], 0.0) for p in mask}
    ever = {p: moving.ever[p] | mask[p] for p in mask}
    after = Moving(mask, moved.selection.memory, ever, moving.base)
    metrics = {}
    if rule.semantics == "mask_gradient":
        updates, opt_state = _apply(transform, grads, opt_state, seen.values, {})
        outside = {p: _within(~mask[p], updates[p], 0.0) for p in mask}
        metrics["leak"] = optax.tree.norm(outside)
    else:
        new = {p: mask[p] & ~moving.mask[p] for p in mask}
        begin = moments.fresh(opt_state, new, rule.policy, moved.seeds, rule.decays)
        updates, state = _apply(transform, grads, begin, seen.values, mask)
        opt_state = moments.rest(begin, state, mask)
        updates |= {p: _within(mask[p], updates[p], -0.0) for p in mask}
    return Step(updates, opt_state, after, metrics)


class Relocated(NamedTuple):
    """What `relocate` returns, all at the new positions.

    Attributes:
      values, opt_state, moving, grads: before the optimiser's update.
      leaves: path -> the leaf; what is no longer selected is as it was before, if the
        method says so.
    """

    values: Flat
    opt_state: Any
    moving: Moving
    grads: Flat
    leaves: Flat


def relocate(rule: Rule, seen: Seen, opt_state: Any, moving: Moving) -> Relocated:
    """Moves positions, in a step in which the method looks."""
    moved = rule.selector.update(seen, Selection(moving.mask, memory=moving.memory))
    values, grads, leaves = dict(seen.values), dict(seen.grads), dict(seen.leaves)
    base, ever, stays, places = {}, {}, {}, {}
    for path, new in moved.selection.mask.items():
        old = moving.mask[path]
        if rule.selector.reverts:
            leaves[path] = trees.put(leaves[path], old, moving.base[path])
        place = jnp.clip(jnp.searchsorted(old, new), 0, len(old) - 1)
        stays[path], places[path] = old[place] == new, place
        here = trees.take(leaves[path], new).astype(jnp.float32)
        values[path] = jnp.where(stays[path], seen.values[path][place], here)
        base[path] = jnp.where(stays[path], moving.base[path][place], here)
        grads[path] = trees.take(seen.grads[path], new).astype(jnp.float32)
        ever[path] = trees.put(moving.ever[path], new, jnp.ones(new.shape))
    carried = moments.each(opt_state, lambda p, x: x[places[p]], places)
    new = {path: ~flags for path, flags in stays.items()}
    policy = "reset" if rule.policy == "keep" else rule.policy
    begin = moments.fresh(carried, new, policy, moved.seeds, rule.decays)
    after = Moving(moved.selection.mask, moved.selection.memory, ever, base)
    return Relocated(values, begin, after, grads, leaves)


def begin(
    rule: Rule,
    values: Flat,
    leaves: Mapping[str, Any],
    mask: Mapping[str, Any],
    memory: Any,
) -> Moving:
    """The first state of masks that move.

    Args:
      rule: how they move.
      values: float32 masters.
      leaves: path -> the whole leaf, of those that move as positions.
      mask: path -> what the method chose to begin with: booleans that broadcast to the
        leaf, or positions.
      memory: of the method.

    Raises:
      ValueError: moments are to be seeded, and the method has no seeds.
    """
    ever, base, first = {}, {}, dict(mask)
    used = not bool(rule.selector.looks(jnp.zeros((), jnp.int32)))
    for path, leaf in leaves.items():
        flags = np.zeros(np.shape(leaf), bool)
        flags.reshape(-1)[np.asarray(mask[path])] = used
        ever[path], base[path] = flags, np.array(values[path], np.float32)
    booleans = [path for path in mask if path not in leaves]
    shapes = _shapes(rule, values, leaves, first, memory, base)
    for path in booleans:
        first[path] = np.broadcast_to(np.asarray(mask[path]), shapes[path]).copy()
        ever[path] = np.zeros(shapes[path], bool)  # the first step may change it
    return Moving(first, memory, ever, base)


def ages(rule: Rule, moving: Moving) -> Flat | None:
    """Path -> shape of the ages of a leaf's elements, for the optimiser; None: one."""
    if rule.semantics == "mask_gradient":
        return None
    return {path: np.shape(mask) for path, mask in moving.mask.items()}


def _shapes(rule, values, leaves, mask, memory, base) -> dict[str, tuple[int, ...]]:
    """Of the masks, as the method returns them: one boolean, or one an element."""
    grads = {**values, **leaves}
    seen = Seen(jnp.zeros((), jnp.int32), values, grads, leaves, base)
    full = {
        path: where
        if path in leaves
        else np.broadcast_to(np.asarray(where), np.shape(values[path]))
        for path, where in mask.items()
    }
    selection = Selection(full, memory=memory)
    found = jax.eval_shape(rule.selector.update, seen, selection)
    if rule.policy == "seed" and found.seeds is None:
        raise ValueError("optimizer moments='seed'; this method has no candidates")
    return {path: leaf.shape for path, leaf in found.selection.mask.items()}


def _apply(transform, grads, state, values, mask) -> tuple[Any, Any]:
    full = optax.with_extra_args_support(transform)
    return full.update(grads, state, values, mask=mask)


def _within(mask: jax.Array, x: jax.Array, outside: float) -> jax.Array:
    return jnp.where(mask, x, jnp.asarray(outside, x.dtype))
