"""The tuned tree of a delta: changed leaves as new arrays, put where the base's are."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.delta.leaves import Arrays, Change, walk


def apply(
    changes: Mapping[str, Change],
    before: Arrays,
    rows: Mapping[str, Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Path -> the leaf after its change, a new array, of the "shape" in its row.

    Args:
      changes: of a delta.
      before: leaves of the base; new leaves are not among them.
      rows: `Contents.leaves` of the delta.
    """
    after = {}
    for name, change in changes.items():
        if change.gaps is None:
            after[name] = change.values.reshape(rows[name]["shape"]).copy()
        else:
            after[name] = before[name].copy()
            after[name].reshape(-1)[change.positions] = change.values
    return after


def rebuild(base: Any, changed: Arrays, keys: Mapping[str, tuple[Any, ...]]) -> Any:
    """`base` with some leaves changed, and new leaves put where `keys` says.

    Changed leaves become jax arrays where the base's are, new ones where any is.
    """

    def visit(node: Mapping[Any, Any], prefix: str) -> dict[Any, Any]:
        return {
            key: visit(value, f"{prefix}{key}/")
            if isinstance(value, Mapping)
            else _like(value, changed.get(f"{prefix}{key}"))
            for key, value in node.items()
        }

    tree = visit(base._asdict() if isinstance(base, Variables) else base, "")
    old = [leaf for _, leaf in walk(base).values()]
    model = next((leaf for leaf in old if isinstance(leaf, jax.Array)), None)
    for path, (*parents, last) in keys.items():
        node = tree
        for parent in parents:
            # A base read from a flat file has "0" where the model has 0.
            known = {str(key): key for key in node}
            node = node.setdefault(known.get(str(parent), parent), {})
        node[last] = _new(model, changed[path])
    return Variables(**tree) if isinstance(base, Variables) else tree


def _like(old: Any, new: np.ndarray | None) -> Any:
    if new is None:
        return old
    if not isinstance(old, jax.Array):
        return new
    return jax.device_put(new, old.sharding) if old.committed else jnp.asarray(new)


def _new(model: jax.Array | None, new: np.ndarray) -> Any:
    if model is None or jax.dtypes.canonicalize_dtype(new.dtype) != new.dtype:
        return new  # as a jax array, 64 bits would become 32
    if len(model.sharding.device_set) == 1 or not model.is_fully_replicated:
        return jnp.asarray(new)
    return jax.device_put(new, model.sharding)
