"""Additive arrays: trained in addition to the base's leaves, and merges into them.

See `method.Additive`. Low-rank differences, scales and shifts are of this kind: the
network they are trained in is the base's own, with other numbers in some leaves. With
None everything here is nothing.
"""

from typing import Any

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD, Params
from subtune_jax.core.method import Additive
from subtune_jax.core.trees import Flat


def check(params: Params, added: Additive) -> None:
    """Returns if `added` is of `params`.

    Raises:
      ValueError: there is no such leaf, it is the head's, an array is not float32 or is
        named after no leaf that changes, or merging changes a shape.
    """
    flat = trees.flatten(params)
    for path in added.paths:
        if path not in flat or path.startswith(f"{HEAD}/"):
            near = trees.nearest(path, flat)
            raise ValueError(f"no leaf {path!r} of the base to merge into; {near}")
    for name, array in added.values.items():
        if name.split("+")[0] not in added.paths or name in flat:
            near = trees.nearest(name, added.paths)
            raise ValueError(f"{name!r} is no leaf merged into, + and a name; {near}")
        if array.dtype != np.float32:
            raise ValueError(f"{name!r} is {array.dtype}; additive arrays are float32")
    leaves = {path: flat[path] for path in added.paths}
    merged = jax.eval_shape(added.merge, leaves, dict(added.values))
    shapes = {path: leaf.shape for path, leaf in merged.items()}
    expected = {path: np.shape(flat[path]) for path in added.paths}
    for path in sorted(shapes.keys() | expected.keys()):
        if shapes.get(path) != expected.get(path):
            found, given = shapes.get(path), expected.get(path)
            raise ValueError(f"merging makes {path!r} {found}; it must be {given}")


def count(added: Additive | None, block: str | None = None) -> int:
    """Elements of the additive arrays, of one block where that is given."""
    if added is None:
        return 0
    return sum(
        array.size
        for name, array in added.values.items()
        if block in (None, name.split("/")[0])
    )


def split(added: Additive | None, values: Flat) -> tuple[Flat, Flat]:
    """`values` of leaves, and of the additive arrays."""
    names: Any = () if added is None else added.values
    return (
        {path: value for path, value in values.items() if path not in names},
        {name: values[name] for name in names},
    )


def merge(added: Additive | None, leaves: Flat, values: Flat) -> Flat:
    """The leaves that change, by path, as the network uses them."""
    if added is None:
        return {}
    return added.merge({path: leaves[path] for path in added.paths}, values)
