"""The sparse step for any model and any loop: k values, their gradients, in place.

    positions = st.sparse.find(params, mask)
    values = st.sparse.values(params, positions)
    state = tx.init(values)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, values, state, positions, batch):
        loss, grads = st.sparse.value_and_grad(loss_fn, params, positions, batch)
        updates, state = tx.update(grads, state, values)
        values = optax.apply_updates(values, updates)
        return st.sparse.put(params, positions, values), values, state, loss

The same numbers as `st.masked`, but gradients, moments, norms and whatever crosses the
network have k elements, and other `positions` of the same shapes compile nothing again.
`tx` is any transform that `st.compact` accepts.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Params
from subtune_jax.sparse_step import interpreter

Chosen = dict[str, Any]  # leaf path -> int32 positions; None for the whole leaf
Values = dict[str, jax.Array]  # leaf path -> float32 values


def find(params: Params, mask: Mask) -> Chosen:
    """Where the elements are that `mask` selects; unselected leaves are left out.

    Args:
      params: nested dict of arrays.
      mask: tree of booleans that broadcast to them, True = trainable.

    Returns:
      Path -> flat positions, int32, in a shape of `trees.arrange`; None for a leaf
      that is selected whole.

    Raises:
      ValueError: the mask does not fit the parameters, or selects nothing.
    """
    positions = trees.find(params, mask)
    flat, flags = trees.flatten(params), trees.flatten(mask)
    chosen: Chosen = {}
    for path, leaf in flat.items():
        if path in positions:
            where = trees.arrange(np.asarray(positions[path]), np.shape(leaf))
            chosen[path] = jnp.asarray(where)
        elif np.all(flags[path]) and np.size(leaf):
            chosen[path] = None
    if not chosen:
        raise ValueError("the mask selects nothing; at least one element must be true")
    return chosen


def values(params: Params, chosen: Chosen) -> Values:
    """Float32 copies of the selected elements, shaped as their positions."""
    flat = trees.flatten(params)
    return {
        path: jnp.array(
            flat[path] if where is None else trees.take(flat[path], where),
            jnp.float32,
        )
        for path, where in chosen.items()
    }


def value_and_grad(
    loss_fn: Callable[..., jax.Array], params: Params, chosen: Chosen, *rest: Any
) -> tuple[jax.Array, Values]:
    """The loss, and its float32 gradients in what is chosen.

    Args:
      loss_fn: (params, *rest) -> scalar.
      params: with the current values in place (`put`); any float type.
      chosen: from `find`.
      *rest: not differentiated.
    """
    flat = trees.flatten(params)
    positions = {path: at for path, at in chosen.items() if at is not None}
    whole = {path: flat[path] for path in chosen if path not in positions}
    partial = {path: flat[path] for path in positions}
    frozen = {path: leaf for path, leaf in flat.items() if path not in chosen}

    def loss(whole: Values, partial: Values, frozen: Values, *rest: Any) -> Any:
        return loss_fn(trees.nest({**frozen, **whole, **partial}), *rest), ()

    found = interpreter.gradient(loss, whole, partial, positions, frozen, *rest)
    grads = {path: grad.astype(jnp.float32) for path, grad in found.whole.items()}
    return found.output[0], grads | found.few


def put(params: Params, chosen: Chosen, values: Mapping[str, jax.Array]) -> Params:
    """`params` with the values in place; nothing else is touched, bit for bit."""
    flat = dict(trees.flatten(params))
    for path, where in chosen.items():
        leaf = flat[path]
        new = values[path].astype(leaf.dtype)
        flat[path] = new if where is None else trees.put(leaf, where, new)
    return trees.nest(flat)
