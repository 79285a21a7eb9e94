"""Changes: the elements of an array whose bits differ from another's.

Positions are stored as gaps: how many elements lie between one change and the next,
in the smallest unsigned type that holds the leaf's largest gap.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Change(NamedTuple):
    """What makes one leaf out of another.

    Attributes:
      encoding: "sparse", "whole" (cheaper, as most elements changed) or "new" (there
        is no other).
      count: elements that differ.
      values: 1-D, the new ones: of `positions`, or of all elements.
      positions: int64, rising, into the row-major leaf; None for all elements.
    """

    encoding: str
    count: int
    values: np.ndarray
    positions: np.ndarray | None


def between(old: np.ndarray | None, new: np.ndarray) -> Change | None:
    """What turns `old` into `new`, of one shape and type; None for equal bits."""
    if old is None:
        return Change("new", new.size, new.reshape(-1), None)
    positions = np.flatnonzero(bits(old) != bits(new))
    if not positions.size:
        return None
    values = new.reshape(-1)[positions]
    if values.nbytes + _gaps(positions).nbytes < new.nbytes:
        return Change("sparse", positions.size, values, positions)
    return Change("whole", positions.size, new.reshape(-1), None)


def apply(change: Change, old: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """The leaf that `old` turns into: a new array."""
    if change.positions is None or old is None:
        return change.values.reshape(shape).copy()
    new = old.copy()
    new.reshape(-1)[change.positions] = change.values
    return new


def pack(
    changes: Mapping[str, Change],
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """All changes as few arrays: (row of each leaf, arrays), neither of them empty.

    One array holds the values of one type, leaf after leaf; one holds the bytes of
    all gaps. A row says how a leaf's part is read.
    """
    rows, arrays = {}, {}
    for name, change in changes.items():
        dtype = change.values.dtype.name
        rows[name] = {"encoding": change.encoding, "count": change.count}
        arrays.setdefault(f"values_{dtype}", []).append(change.values)
        if change.positions is not None:
            gaps = _gaps(change.positions)
            rows[name]["gaps"] = gaps.dtype.name
            arrays.setdefault("gaps", []).append(gaps.view(np.uint8))
    joined = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return rows, {name: array for name, array in joined.items() if array.size}


def unpack(
    rows: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> dict[str, Change]:
    """The inverse of `pack`, for rows that know their `dtype` and `shape` as well."""
    taken: dict[str, int] = {}

    def take(array: str, dtype: np.dtype, count: int) -> np.ndarray:
        stream = arrays[array].view(dtype) if array != "gaps" else arrays[array]
        start = taken.get(array, 0)
        length = count * (dtype.itemsize if array == "gaps" else 1)
        taken[array] = start + length
        return stream[start : start + length].view(dtype)

    changes = {}
    for name, row in rows.items():
        dtype, size = jnp.dtype(row["dtype"]), int(np.prod(row["shape"], dtype=int))
        positions = None
        if row["encoding"] == "sparse":
            size = row["count"]
            gaps = take("gaps", np.dtype(row["gaps"]), size)
            positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
        values = (
            take(f"values_{dtype.name}", dtype, size) if size else np.empty(0, dtype)
        )
        changes[name] = Change(row["encoding"], row["count"], values, positions)
    return changes


def bits(array: np.ndarray) -> np.ndarray:
    """The elements' bits as unsigned integers, 1-D; equal only for equal bits."""
    return array.reshape(-1).view(f"u{array.dtype.itemsize}")


def _gaps(positions: np.ndarray) -> np.ndarray:
    gaps = np.diff(positions, prepend=-1) - 1
    return gaps.astype(np.min_scalar_type(gaps.max()))
