"""Updates that move the selection and nothing else, around any optax transform.

What is not selected keeps its bits: its update is -0.0, the one number that added
to any other leaves it alone (+0.0 would turn -0.0 into +0.0).
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from subtune_jax.core import trees


def masked(tx: optax.GradientTransformation, mask: Any) -> optax.GradientTransformation:
    """`tx` where `mask` is true; everywhere else nothing moves, bit for bit.

    Whole leaves go through `optax.masked`, so `tx` holds state for reached leaves
    only. `optax.masked` passes the *raw gradient* of the others through as their
    update; here it is replaced by -0.0, the one number that added to any other
    leaves its bits alone (+0.0 turns -0.0 into +0.0). Within a leaf that is reached
    in part, gradients are zeroed before `tx`, so that moments and norms see the
    selection, and updates after it, so that decay and momentum cannot leak.

    Args:
      tx: any transformation.
      mask: tree of booleans that broadcast to the parameters, True = trainable;
        static.

    Raises:
      ValueError: the mask selects nothing, or does not match the parameters.
    """
    reach = jax.tree.map(lambda chosen: bool(np.any(chosen)), mask)
    if not any(jax.tree.leaves(reach)):
        raise ValueError("the mask selects nothing; at least one element must be true")
    inner = optax.masked(tx, reach)

    def init(params):
        return inner.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        seen = jax.tree.map(
            lambda g, m: jnp.where(m, g, jnp.zeros_like(g)), grads, mask
        )
        updates, state = inner.update(seen, state, params)
        still = jax.tree.map(
            lambda u, m: jnp.where(m, u, jnp.full_like(u, -0.0)), updates, mask
        )
        return still, state

    return optax.GradientTransformation(init, cast(Any, update))


class CompactState(NamedTuple):
    """State of `compact`.

    Attributes:
      positions: path of each partial leaf -> int32 `[k]`, sorted flat positions.
      inner: state of the wrapped transformation over the selected values.
    """

    positions: trees.Flat
    inner: Any


def compact(
    tx: optax.GradientTransformation, mask: Any
) -> optax.GradientTransformation:
    """`tx` on the selected elements alone, with state of their size.

    The updates are those of `masked(tx, mask)`: unselected elements get a negative
    zero, the one number that added to any other leaves its bits alone.

    Args:
      tx: a transformation for which gathering the elements first changes nothing:
        any elementwise one, and clipping by global norm, which then sees the
        selection only.
      mask: tree of booleans that broadcast to the parameters, True = trainable;
        static.

    Raises:
      ValueError: from here, `tx` is not such a transformation (for example it
        factors matrices or takes norms of whole arrays); from `init`, the mask does
        not fit the parameters.
    """
    with jax.ensure_compile_time_eval():  # so that it may be called inside jit
        _refuse_if_shapes_matter(tx)

    def init(params):
        positions = trees.find(params, mask)
        return CompactState(positions, tx.init(trees.gather(positions, params, mask)))

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        where = state.positions
        values = None if params is None else trees.gather(where, params, mask)
        few = trees.gather(where, grads, mask)
        few, inner = cast(Any, tx.update)(few, state.inner, values)
        return trees.spread(where, few, grads), CompactState(where, inner)

    return optax.GradientTransformation(init, cast(Any, update))


def _refuse_if_shapes_matter(tx: optax.GradientTransformation) -> None:
    """Tries `tx` for two steps: gathered first, or zero elsewhere, must be the same.

    The array is large enough for adafactor to factor it, and the gradients span
    the regimes of clipping.
    """
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(128, 130)), jnp.float32)
    chosen = rng.random(weights.shape) < 0.3
    where = jnp.asarray(np.flatnonzero(chosen), jnp.int32)
    few, few_state = (
        trees.take(weights, where),
        tx.init({"w": trees.take(weights, where)}),
    )
    all_state = tx.init({"w": weights})
    update = cast(Any, tx.update)
    for scale in (1e-3, 30.0):
        slope = jnp.asarray(rng.normal(size=chosen.shape) * chosen * scale, jnp.float32)
        try:
            dense, all_state = update({"w": slope}, all_state, {"w": weights})
            thin, few_state = update(
                {"w": trees.take(slope, where)}, few_state, {"w": few}
            )
        except TypeError as error:  # it wants extra arguments: a loss, a Hessian
            raise ValueError(
                f"compact: {error}; pass a transform of gradients"
            ) from None
        expected = np.asarray(trees.take(dense["w"], where))
        if not np.allclose(expected, thin["w"], rtol=1e-4, atol=1e-7):
            raise ValueError(
                "compact was given a transform whose result depends on the shape of "
                "an array or on unselected elements; use masked(tx, mask) instead"
            )
