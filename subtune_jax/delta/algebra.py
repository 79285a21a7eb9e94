"""Deltas among themselves: what two have in common, and several as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from subtune_jax.core.registry import near
from subtune_jax.delta import folder, leaves, restore, store, tensor_file
from subtune_jax.delta.leaves import Change, bits

RULES = ("error", "last", "mean")
Part = tuple[np.ndarray, np.ndarray]  # positions, values: 1-D, of one length


def diff(path_a: str | Path, path_b: str | Path) -> dict[str, Any]:
    """How two deltas overlap: `same_base`, and `leaves`, a row for each leaf of either.

    Row: `a` and `b`, elements that each holds; `both`, elements that both hold;
    `equal`, those of them with equal bits. A leaf held whole counts with all its
    elements. `both` is 0 where the leaves have different shapes or types.

        algebra.diff("runs/a/delta", "runs/b/delta")["leaves"]["params/head/bias"]
        # {"a": 10, "b": 10, "both": 10, "equal": 0}

    Raises:
      FileNotFoundError: there is nothing at a path.
      ValueError: what is there is no delta, or damaged.
    """
    a, b = folder.read(path_a), folder.read(path_b)
    rows = {}
    for name in sorted(a.changes.keys() | b.changes.keys()):
        change_a, change_b = a.changes.get(name), b.changes.get(name)
        row = {
            "a": 0 if change_a is None else change_a.values.size,
            "b": 0 if change_b is None else change_b.values.size,
            "both": 0,
            "equal": 0,
        }
        if change_a and change_b and _kind(a.leaves[name]) == _kind(b.leaves[name]):
            (at_a, new_a), (at_b, new_b) = _part(change_a), _part(change_b)
            _, in_a, in_b = np.intersect1d(at_a, at_b, True, return_indices=True)
            same = bits(new_a[in_a]) == bits(new_b[in_b])
            row["both"], row["equal"] = int(in_a.size), int(np.count_nonzero(same))
        rows[name] = row
    same_base = a.manifest["base_fingerprint"] == b.manifest["base_fingerprint"]
    return {"same_base": same_base, "leaves": rows}


def merge(paths: Sequence[str | Path], base: Any, rule: str = "error") -> Any:
    """`base` with the changes of all deltas: a tree of the type of `base`.

    Where several change an element and agree, that is its value. Where they do not,
    `rule` decides: "error", "last" (of `paths`), or "mean" (of floating values,
    taken in float64).

        both = algebra.merge(["runs/a/delta", "runs/b/delta"], base, rule="mean")

    Args:
      paths: delta folders.
      base: nested dict of arrays, or `Variables`: the base of all of them.
      rule: one of `RULES`.

    Raises:
      ValueError: two deltas disagree and the rule is "error", or "mean" of integers;
        a new leaf has two shapes; `base` is not the base of all; no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"no merge rule {rule!r}; {near(rule, RULES)}")
    before = leaves.flatten(base)
    digests = leaves.digests(before)
    parts: dict[str, list[Part]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        contents = folder.read(path)
        store.refuse_base(contents, before, digests)
        for name, change in contents.changes.items():
            row = rows.setdefault(name, contents.leaves[name])
            if _kind(row) != _kind(contents.leaves[name]):
                kinds = f"{_kind(row)} and {_kind(contents.leaves[name])}"
                raise ValueError(f"leaf {name!r} is {kinds}; these cannot be merged")
            parts.setdefault(name, []).append(_part(change, before.get(name)))
    changed = {}
    for name, row in rows.items():
        start = before.get(name)
        if start is None:
            start = np.zeros(row["shape"], jnp.dtype(row["dtype"]))
        changed[name] = _join(name, start, parts[name], rule)
    keys = {name: rows[name]["keys"] for name in changed if name not in before}
    return restore.rebuild(base, changed, keys)


def export(path: str | Path, file: str | Path) -> Path:
    """Writes a delta as one `.safetensors` or `.npz` file, and returns its path.

    A sparse leaf `a/b` is two arrays: `a/b.positions`, int64, rising, into the
    row-major leaf, and `a/b.values`. Any other leaf is one array, `a/b`, whole. The
    notes are `base_fingerprint`, `result_fingerprint` and `meta` (JSON).

        algebra.export("runs/a/delta", "a.safetensors")

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no delta, or damaged; `file` has another ending.
    """
    contents = folder.read(path)
    arrays = {}
    for name, change in contents.changes.items():
        if change.positions is None:
            arrays[name] = change.values.reshape(contents.leaves[name]["shape"])
        else:
            arrays[f"{name}.positions"] = change.positions
            arrays[f"{name}.values"] = change.values
    notes = {
        "base_fingerprint": contents.manifest["base_fingerprint"],
        "result_fingerprint": contents.manifest["result_fingerprint"],
        "meta": json.dumps(contents.manifest["meta"]),
    }
    return tensor_file.write(file, arrays, notes)


def _part(change: Change, old: np.ndarray | None = None) -> Part:
    """Positions and values; of a whole leaf those that differ from `old`, or all."""
    positions = change.positions
    if positions is not None:
        return positions, change.values
    if old is None:
        return np.arange(change.values.size), change.values
    positions = np.flatnonzero(bits(old) != bits(change.values))
    return positions, change.values[positions]


def _join(name: str, start: np.ndarray, parts: list[Part], rule: str) -> np.ndarray:
    """A copy of `start` with all parts put in."""
    positions = np.concatenate([positions for positions, _ in parts])
    order = np.argsort(positions, kind="stable")  # of one element: in the order given
    positions = positions[order]
    values = np.concatenate([values for _, values in parts])[order]
    first = np.flatnonzero(np.diff(positions, prepend=-1))
    counts = np.diff(first, append=positions.size)
    picked = values[first + counts - 1]
    differ = bits(values) != np.repeat(bits(picked), counts)
    conflict = np.unique(np.repeat(np.arange(first.size), counts)[differ])
    if conflict.size and rule == "error":
        what = f"the deltas disagree in {conflict.size} elements of leaf {name!r}"
        raise ValueError(f"{what}; the rules 'last' and 'mean' decide")
    if conflict.size and rule == "mean":
        if not jnp.issubdtype(values.dtype, jnp.floating):
            raise ValueError(f"leaf {name!r} is {values.dtype}; it has no mean")
        means = np.add.reduceat(values.astype(np.float64), first) / counts
        picked[conflict] = means[conflict].astype(values.dtype)
    new = start.copy()
    new.reshape(-1)[positions[first]] = picked
    return new


def _kind(row: dict[str, Any]) -> str:
    return f"{row['dtype']} {row['shape']}"
