"""Leaves of a tree by path, as NumPy arrays, and digests of their content."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.delta import folder


def walk(tree: Any) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Path `a/b/c` -> (keys from the root, leaf), sorted by path.

    `Variables` are the dicts `params` and `stats`. Keys need not be strings.

    Raises:
      ValueError: `tree` is neither dict nor `Variables`, or two leaves have one path.
    """
    tree = tree._asdict() if isinstance(tree, Variables) else tree
    if not isinstance(tree, Mapping):
        what = type(tree).__name__
        raise ValueError(f"a tree of type {what}; there are dicts and Variables")
    found = {}

    def visit(node: Any, keys: tuple[Any, ...]) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                visit(value, (*keys, key))
            return
        path = "/".join(map(str, keys))
        if path in found:
            raise ValueError(f"two leaves have the path {path!r}; paths are unique")
        found[path] = keys, node

    visit(tree, ())
    return dict(sorted(found.items()))


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Path -> array in row-major order, sorted by path.

    Raises:
      ValueError: as `walk`, or a leaf is no array of numbers held by this process.
    """
    return {path: _array(path, leaf) for path, (_, leaf) in walk(tree).items()}


def rebuild(
    base: Any,
    changed: Mapping[str, np.ndarray],
    keys: Mapping[str, tuple[Any, ...]],
) -> Any:
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


def digest(array: np.ndarray) -> str:
    """Hex sha256 of an array's type, shape and elements."""
    head = f"{array.dtype.name} {list(array.shape)}\n".encode()
    return folder.digest(array, head)


def combine(digests: Mapping[str, str]) -> str:
    """The fingerprint of a tree: hex sha256 of its paths and digests, sorted."""
    return folder.digest(json.dumps(sorted(digests.items())).encode())


def _array(path: str, leaf: Any) -> np.ndarray:
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        raise ValueError(f"leaf {path!r} is of type {type(leaf).__name__}, no array")
    dtype = leaf.dtype
    number = dtype.kind == "b" or jnp.issubdtype(dtype, jnp.number)
    if not number or dtype.itemsize not in (1, 2, 4, 8):
        raise ValueError(
            f"leaf {path!r} is of {dtype}; there are numbers up to 64 bits"
        )
    if isinstance(leaf, jax.Array):
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            raise ValueError(f"leaf {path!r} is spread over processes; gather it first")
    array = np.asarray(leaf, order="C")
    return array.astype(dtype.newbyteorder("="), copy=False)


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
