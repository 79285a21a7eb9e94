"""What `delta.save` and `delta.load` refuse: ValueErrors that name the first leaf."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.delta.changed import bits
from subtune_jax.delta.folder import SHORT
from subtune_jax.delta.leaves import combine, walk

Arrays = Mapping[str, np.ndarray]


def refuse_mismatch(before: Arrays, after: Arrays) -> None:
    """Refuses a tuned tree that lacks a leaf, or has one of other type or shape."""
    for name, old in before.items():
        if name not in after:
            raise ValueError(f"no leaf {name!r} in the tuned tree; the base has one")
        if _kind(old) != _kind(after[name]):
            was, now = _kind(old), _kind(after[name])
            raise ValueError(f"leaf {name!r} is {now} in the tuned tree; base: {was}")


def refuse_outside(mask: Any, base: Any, before: Arrays, after: Arrays) -> None:
    """Refuses leaves of the base that changed outside `mask`.

    Beside `Variables`, a mask that is a dict is one of the parameters.
    """
    of_params = isinstance(base, Variables) and not isinstance(mask, Variables)
    given = walk(Variables(mask, {}) if of_params else mask)
    for name, old in before.items():
        if of_params and name.startswith("stats/"):
            continue
        moved = bits(old) != bits(after[name])
        if not moved.any():
            continue
        if name not in given:
            raise ValueError(f"leaf {name!r} changed, and the mask does not have it")
        allowed = np.asarray(given[name][1], bool)
        outside = moved & ~np.broadcast_to(allowed, old.shape).reshape(-1)
        if outside.any():
            count = np.count_nonzero(outside)
            raise ValueError(
                f"leaf {name!r} changed in {count} elements outside the mask"
            )


def refuse_base(
    manifest: Mapping[str, Any],
    leaves: Mapping[str, Mapping[str, Any]],
    before: Arrays,
    digests: Mapping[str, str],
) -> None:
    """Refuses a base whose leaves, their types, shapes or content are not those."""
    known = {name: row for name, row in leaves.items() if "base" in row}
    for name in sorted(known.keys() | before.keys()):
        if name not in before:
            count = f"it has {len(before)} others"
            raise ValueError(f"wrong base: there is no leaf {name!r}; {count}")
        if name not in known:
            raise ValueError(f"wrong base: leaf {name!r} is not in the delta's base")
        row = known[name]
        if _kind(before[name]) != f"{row['dtype']} {row['shape']}":
            what = f"leaf {name!r} is {_kind(before[name])}"
            raise ValueError(f"wrong base: {what}, not {row['dtype']} {row['shape']}")
        if digests[name][:SHORT] != row["base"]:
            raise ValueError(f"wrong base: leaf {name!r} has other content")
    if combine(digests) != manifest["base_fingerprint"]:
        raise ValueError("wrong base: its fingerprint is not the delta's")


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
