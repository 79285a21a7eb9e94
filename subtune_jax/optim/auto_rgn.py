"""Auto-RGN: each array learns at a rate of its own, by its relative gradient norm.

Source: Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts",
arXiv:2210.11466. Their code takes the mean ratio over the first five batches of every
epoch before it trains on them, and starts each epoch with a fresh Adam; arrays of
batch norms get no update. Here the ratio is that of the first batch of every period,
on which the network is trained as well.
"""

import re
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """State of `auto_rgn`.

    Attributes:
      count: int32, steps done.
      rates: path -> factor in [0, 1] of the updates of that array.
      inner: state of the wrapped transformation.
    """

    count: jax.Array
    rates: dict[str, jax.Array]
    inner: Any


def auto_rgn(
    tx: optax.GradientTransformation, period: int, skip: str = r".*norm.*"
) -> optax.GradientTransformation:
    """`tx`, its updates times `r / max r`, with `r = norm(gradient) / norm(array)`.

    Every `period` steps the factors are set anew and `tx` forgets its state.

    Args:
      tx: over flat dicts `{path: array}`, without a learning rate's schedule.
      period: steps of an epoch, 1 or more.
      skip: regular expression of the paths, in full, that get no update.

    Raises:
      ValueError: `period` is below 1.
    """
    if period < 1:
        raise ValueError(f"auto_rgn period={period}; it must be 1 or more")

    def init(params: Any) -> State:
        zeros = {path: jnp.zeros(()) for path in params}
        return State(jnp.zeros((), jnp.int32), zeros, tx.init(params))

    def update(grads: Any, state: State, params: Any = None) -> Any:
        first = state.count % period == 0
        fresh = relative_rates(grads, params, skip), tx.init(params)
        rates, inner = jax.tree.map(
            lambda new, old: jnp.where(first, new, old),
            fresh,
            (state.rates, state.inner),
        )
        updates, inner = cast(Any, tx.update)(grads, inner, params)
        updates = {path: rates[path] * leaf for path, leaf in updates.items()}
        return updates, State(state.count + 1, rates, inner)

    return optax.GradientTransformation(init, cast(Any, update))


def relative_rates(grads: Any, params: Any, skip: str) -> dict[str, jax.Array]:
    """Path -> factor: 1 for the array whose gradient is largest beside its values."""
    ratios = {
        path: jnp.zeros(())
        if re.fullmatch(skip, path)
        else jnp.linalg.norm(grad) / jnp.maximum(jnp.linalg.norm(params[path]), 1e-12)
        for path, grad in grads.items()
    }
    largest = jnp.maximum(jnp.stack([*ratios.values()]).max(), 1e-30)
    return {path: ratio / largest for path, ratio in ratios.items()}
