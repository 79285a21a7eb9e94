"""Leaves of a tree by path, their fingerprint, and the elements in which two differ.

Bits are compared, not numbers: -0.0 is not 0.0, and NaNs have payloads. Positions of
changed elements are kept as gaps: how many elements lie between one change and the
next, in the smallest unsigned type that holds the leaf's largest gap.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Variables

Arrays = Mapping[str, np.ndarray]  # path -> leaf


class Change(NamedTuple):
    """The new elements of one leaf.

    Attributes:
      encoding: "sparse"; "whole" (cheaper, as most elements changed); "new" (a leaf
        that the base lacks).
      count: elements that differ from the base; of a new leaf, all.
      values: 1-D, in row-major order: those at `positions`, or all of the leaf.
      gaps: 1-D, unsigned; None for all elements.
    """

    encoding: str
    count: int
    values: np.ndarray
    gaps: np.ndarray | None

    @property
    def positions(self) -> np.ndarray | None:
        """Int64, rising, into the row-major leaf; None for all elements."""
        if self.gaps is None:
            return None
        return np.cumsum(self.gaps.astype(np.int64) + 1) - 1


def walk(tree: Any) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Path `a/b/c` -> (keys from the root, leaf), sorted by path.

    `Variables` are the dicts `params` and `stats`. Keys need not be strings.

    Raises:
      ValueError: `tree` is neither dict nor `Variables`, or two leaves have one path.
    """
    tree = tree._asdict() if isinstance(tree, Variables) else tree
    if not isinstance(tree, Mapping):
        kind = type(tree).__name__
        raise ValueError(f"a tree of type {kind}; there are dicts and Variables")
    leaves = {}

    def visit(node: Any, keys: tuple[Any, ...]) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                visit(value, (*keys, key))
            return
        path = "/".join(map(str, keys))
        if path in leaves:
            raise ValueError(f"two leaves have the path {path!r}; paths are unique")
        leaves[path] = keys, node

    visit(tree, ())
    return dict(sorted(leaves.items()))


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Path -> array in row-major order on the host, sorted by path.

    >>> flatten({"b": np.ones(1), "a": {"w": np.zeros(2)}})
    {'a/w': array([0., 0.]), 'b': array([1.])}

    Raises:
      ValueError: as `walk`, or a leaf is no array of numbers held by this process.
    """
    return {path: _array(path, leaf) for path, (_, leaf) in walk(tree).items()}


def digests(arrays: Arrays) -> dict[str, str]:
    """Path -> hex sha256 of the leaf's type, shape and elements."""
    hashes = {}
    for path, array in arrays.items():
        head = f"{array.dtype.name} {list(array.shape)}\n".encode()
        content: Any = array.reshape(-1).view(np.uint8)  # hashlib knows no bfloat16
        total = hashlib.sha256(head)
        total.update(content)
        hashes[path] = total.hexdigest()
    return hashes


def combine(hashes: Mapping[str, str]) -> str:
    """The fingerprint of a tree: hex sha256 of its paths and `digests`, sorted."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def fingerprint(tree: Any) -> str:
    """Hex sha256 of the content of `tree`: sorted paths, types, shapes and bytes.

    The same for the same numbers as NumPy and as jax arrays, as a dict and as
    `Variables`, on one device and on many.

    >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": -np.zeros(2)})
    False

    Args:
      tree: nested dict of arrays, of any shapes, or `Variables`.

    Raises:
      ValueError: as `flatten`.
    """
    return combine(digests(flatten(tree)))


def changes(
    before: Arrays, after: Arrays, allowed: Arrays | None = None
) -> dict[str, Change]:
    """Path -> what turns the leaf of `before` into that of `after`, where bits differ.

    >>> changes({"w": np.zeros(9)}, {"w": np.eye(3).reshape(9)})["w"].positions
    array([0, 4, 8])

    Args:
      before: of the base.
      after: all leaves of `before`, of the same shapes and types, and perhaps more.
      allowed: booleans that broadcast to the leaves of `before`: where these may
        differ; None for anywhere.

    Raises:
      ValueError: a leaf of `before` differs elsewhere.
    """
    changed = {}
    for path, new in after.items():
        if path not in before:
            changed[path] = Change("new", new.size, new.reshape(-1), None)
            continue
        differs = bits(before[path]) != bits(new)
        positions = np.flatnonzero(differs)
        if not positions.size:
            continue
        if allowed is not None:
            _refuse_outside(path, differs.reshape(new.shape), allowed)
        gaps = np.diff(positions, prepend=-1) - 1
        gaps = gaps.astype(np.min_scalar_type(gaps.max()))
        values = new.reshape(-1)[positions]
        if values.nbytes + gaps.nbytes < new.nbytes:
            changed[path] = Change("sparse", positions.size, values, gaps)
        else:
            changed[path] = Change("whole", positions.size, new.reshape(-1), None)
    return changed


def bits(array: np.ndarray) -> np.ndarray:
    """The elements' bits as unsigned integers, 1-D; equal only for equal bits."""
    return array.reshape(-1).view(f"u{array.dtype.itemsize}")


def _refuse_outside(path: str, differs: np.ndarray, allowed: Arrays) -> None:
    if path not in allowed:
        raise ValueError(f"leaf {path!r} changed, and the mask does not have it")
    outside = differs & ~np.broadcast_to(np.asarray(allowed[path], bool), differs.shape)
    if outside.any():
        count = np.count_nonzero(outside)
        raise ValueError(f"leaf {path!r} changed in {count} elements outside the mask")


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
