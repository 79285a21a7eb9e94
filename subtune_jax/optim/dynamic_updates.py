"""Dynamic masks in an optax loop of your own: `masked_updates.masked`, with a method.

    selector = dps_dense.make(stage_steps=10)
    tx = st.moving_masked(optax.adamw(1e-3), selector, evidence)

One compiled step serves the whole run. Nothing outside the mask of a step moves in it,
bit for bit, whatever `tx` does.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from subtune_jax.core import registry, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.core.method import Evidence, Seen, Selector, hold
from subtune_jax.optim import dynamic_mask, moments, partition
from subtune_jax.optim.dynamic_mask import Moving, Rule
from subtune_jax.selection import masks

POLICIES = tuple(policy for policy in moments.POLICIES if policy != "seed")


class MovingState(NamedTuple):
    """State of `moving_masked`.

    Attributes:
      step: int32, updates had.
      inner: of the wrapped transformation, over path -> leaf.
      moving: the mask of the last step, and what the method remembers.
    """

    step: jax.Array
    inner: Any
    moving: Moving


def moving_masked(
    tx: optax.GradientTransformation,
    selector: Selector,
    evidence: Evidence,
    *,
    policy: str = "keep",
) -> optax.GradientTransformation:
    """`tx` where the method's mask is true in this step; nothing else moves.

    Gradients are those of whole leaves, as `jax.grad` gives them, and moments are of
    whole leaves that the method may ever reach: this is for comparing methods, and
    saves no memory. Moments of an element rest while it is outside the mask. Adam's
    correction for bias goes by the step, not by the updates that an element had.

    Args:
      tx: any transformation; it sees gradients that are zero outside the mask.
      selector: of a method whose mask moves over whole leaves: `dps_dense`,
        `child_tuning_f`, `gmt`, `lisa`, `badam`, or your own.
      evidence: for `selector.init`; its parameters are those of training, and its last
        block, the new head, is trained whole.
      policy: what becomes of moments when an element is selected: `"keep"` or
        `"reset"`, see `moments`.

    Raises:
      ValueError: the method does not move its mask, moves positions, or does more than
        choose; `policy` is unknown; from `update`, there are no parameters.
    """
    registry.check_choice("policy", policy, POLICIES)
    _refuse_more(selector)
    selection = selector.init(evidence)
    given = Variables(evidence.params, {}), evidence.blocks, selection
    plan = partition.make(*given, moves=True)
    if plan.places or plan.positions or plan.additive or selection.values:
        raise ValueError(
            "moving_masked was given a method that moves positions, adds arrays or "
            "starts elsewhere; `subtune train` has it"
        )
    rule = Rule(selector, policy=policy)

    def init(params: Any) -> MovingState:
        masks.check(params, plan.mask)
        values = trees.pick(params, plan.values)
        begin = dynamic_mask.begin(rule, values, {}, plan.moving, plan.memory)
        begin = jax.tree.map(jnp.array, begin)
        return MovingState(jnp.zeros((), jnp.int32), tx.init(values), begin)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        if params is None:
            raise ValueError("moving_masked was given no params; update needs them")
        values, slopes = (trees.pick(tree, plan.values) for tree in (params, grads))
        seen = Seen(state.step, values, slopes)
        done = dynamic_mask.update(tx, rule, seen, state.inner, state.moving)
        updates = trees.map_leaves(
            lambda path, g: done.updates.get(path, jnp.full_like(g, -0.0)), grads
        )
        return updates, MovingState(state.step + 1, done.opt_state, done.moving)

    return optax.GradientTransformation(init, cast(Any, update))


def _refuse_more(selector: Selector) -> None:
    if selector.update is hold:
        raise ValueError(
            "moving_masked was given a method whose mask stays; use masked(tx, mask)"
        )
    if selector.view is not None or selector.penalty is not None:
        raise ValueError(
            "moving_masked was given a method that changes the loss; its selector.view "
            "and selector.penalty belong in yours, or use `subtune train`"
        )
