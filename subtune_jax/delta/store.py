"""Saving what turns one tree into another, and loading it; what both refuse.

A delta holds the new values of exactly the elements whose bits differ from the base,
where they stand, and fingerprints of the base and of the result. Leaves that the base
lacks, such as a new head, are held whole.
"""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.delta import folder, leaves, restore
from subtune_jax.delta.folder import SHORT, Contents
from subtune_jax.delta.leaves import Arrays, Change

LIBRARIES = ("subtune-jax", "jax", "numpy", "orbax-checkpoint")


def save(
    path: str | Path, base: Any, tuned: Any, meta: Any = None, mask: Any = None
) -> Path:
    """Writes what turns `base` into `tuned`, atomically, and returns `path`.

    In a run of several processes all may call: process 0 writes, nobody waits.

        base = {"w": np.zeros([3, 3]), "b": np.zeros(3)}
        tuned = {"w": np.eye(3), "b": np.zeros(3)}
        delta.save("runs/eye", base, tuned, mask={"w": np.eye(3, dtype=bool)})

    Args:
      path: a folder; a delta that is there already is replaced.
      base: nested dict of arrays of any shapes, or `Variables`.
      tuned: all leaves of `base`, of the same shapes and types, and perhaps more.
      meta: any JSON.
      mask: where leaves of the base may differ, `True` = may; booleans that broadcast
        to each leaf. With `Variables`, a mask of the parameters will do: statistics
        may then differ. It is checked, not stored.

    Raises:
      ValueError: a leaf is missing, is no array, has another shape or type, or changed
        outside `mask`; `meta` is no JSON; something else is at `path`.
    """
    folder.refuse_other(path)
    try:
        json.dumps(meta)
    except TypeError as error:
        raise ValueError(f"meta is no JSON: {error}") from error
    before, after = leaves.flatten(base), leaves.flatten(tuned)
    refuse_mismatch(before, after)
    allowed = None if mask is None else _allowed(mask, base, before)
    changes = leaves.changes(before, after, allowed)
    if jax.process_index() == 0:
        keys = {name: keys for name, (keys, _) in leaves.walk(tuned).items()}
        manifest, rows = _described(before, after, changes, keys)
        versions = {name: metadata.version(name) for name in LIBRARIES}
        manifest |= {"meta": meta, "versions": versions}
        folder.write(path, manifest, rows, changes)
    return Path(path)


def load(path: str | Path, base: Any) -> Any:
    """The tuned tree, bit for bit, of the type of `base`.

    Leaves that did not change are those of `base` itself; changed ones are jax arrays
    where the base's are, NumPy arrays otherwise.

        tuned = delta.load("runs/eye", base)  # {"w": the identity, "b": base["b"]}

    Args:
      path: the folder that `save` wrote.
      base: as it was given to `save`: nested dict of arrays, or `Variables`, of the
        same paths, shapes, types and content, here or on any devices.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: `base` is not the delta's base (the first leaf that differs is
        named), or the delta is damaged.
    """
    contents = folder.read(path)
    before = leaves.flatten(base)
    digests = leaves.digests(before)
    refuse_base(contents, before, digests)
    rows = contents.leaves
    changed = restore.apply(contents.changes, before, rows)
    for name, digest in leaves.digests(changed).items():
        digests[name] = digest
        if digest[:SHORT] != rows[name]["result"]:
            raise ValueError(f"delta {path} is damaged: leaf {name!r} is not intact")
    if leaves.combine(digests) != contents.manifest["result_fingerprint"]:
        raise ValueError(f"delta {path} is damaged: the result is not what was saved")
    keys = {name: rows[name]["keys"] for name in changed if name not in before}
    return restore.rebuild(base, changed, keys)


def info(path: str | Path) -> dict[str, Any]:
    """What a delta says of itself, integrity checked; needs no base.

    Keys: `format`, `base_fingerprint`, `result_fingerprint`, `meta`, `versions`;
    `bytes` on disk; `count` of changed elements; `leaves`, path -> row of each changed
    leaf (encoding, count, size, shape, dtype); `unchanged`, the number of the others.

        delta.info("runs/eye")["leaves"]["w"]["count"]  # 3 of "size" 9

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no delta, or damaged.
    """
    contents = folder.read(path)
    known = ("format", "base_fingerprint", "result_fingerprint", "meta", "versions")
    rows = {}
    for name in contents.changes:
        row = contents.leaves[name]
        rows[name] = {key: row[key] for key in ("encoding", "count", "shape", "dtype")}
        rows[name]["size"] = int(np.prod(row["shape"], dtype=int))
    return {
        **{key: contents.manifest[key] for key in known},
        "bytes": folder.size(path),
        "count": sum(row["count"] for row in rows.values()),
        "leaves": rows,
        "unchanged": len(contents.leaves) - len(rows),
    }


def refuse_mismatch(before: Arrays, after: Arrays) -> None:
    """Refuses a tuned tree that lacks a leaf, or has one of other type or shape."""
    for name, old in before.items():
        if name not in after:
            raise ValueError(f"no leaf {name!r} in the tuned tree; the base has one")
        if _kind(old) != _kind(after[name]):
            was, now = _kind(old), _kind(after[name])
            raise ValueError(f"leaf {name!r} is {now} in the tuned tree; base: {was}")


def refuse_base(contents: Contents, before: Arrays, digests: Mapping[str, str]) -> None:
    """Refuses a base whose leaves, their types, shapes or content are not the delta's.

    Args:
      contents: of the delta.
      before: path -> leaf of the base.
      digests: of `before`.
    """
    known = {name: row for name, row in contents.leaves.items() if "base" in row}
    for name in sorted(known.keys() | before.keys()):
        if name not in before:
            count = f"it has {len(before)} others"
            raise ValueError(f"wrong base: there is no leaf {name!r}; {count}")
        if name not in known:
            raise ValueError(f"wrong base: leaf {name!r} is not in the delta's base")
        row, kind = known[name], _kind(before[name])
        if kind != f"{row['dtype']} {row['shape']}":
            what = f"leaf {name!r} is {kind}"
            raise ValueError(f"wrong base: {what}, not {row['dtype']} {row['shape']}")
        if digests[name][:SHORT] != row["base"]:
            raise ValueError(f"wrong base: leaf {name!r} has other content")
    if leaves.combine(digests) != contents.manifest["base_fingerprint"]:
        raise ValueError("wrong base: its fingerprint is not the delta's")


def _allowed(mask: Any, base: Any, before: Arrays) -> dict[str, Any]:
    """Path -> where it may differ; of `Variables`, a dict masks the parameters."""
    of_params = isinstance(base, Variables) and not isinstance(mask, Variables)
    flags = leaves.walk(Variables(mask, {}) if of_params else mask)
    allowed = {name: flag for name, (_, flag) in flags.items()}
    if of_params:
        allowed |= {name: True for name in before if name.startswith("stats/")}
    return allowed


def _described(
    before: Arrays,
    after: Arrays,
    changes: Mapping[str, Change],
    keys: Mapping[str, tuple[Any, ...]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The manifest's fingerprints and counts, and a row for each leaf of `after`.

    `keys` of a leaf lead to it from the root.
    """
    bases = leaves.digests(before)
    results = leaves.digests({name: after[name] for name in changes})
    rows: dict[str, dict[str, Any]] = {}
    for name, new in after.items():
        rows[name] = {"shape": new.shape, "dtype": new.dtype.name}
        if name in before:
            rows[name]["base"] = bases[name][:SHORT]
        else:
            rows[name]["keys"] = keys[name]
        if name in changes:
            rows[name]["result"] = results[name][:SHORT]
    manifest = {
        "base_fingerprint": leaves.combine(bases),
        "result_fingerprint": leaves.combine({**bases, **results}),
        "changed": {name: change.count for name, change in changes.items()},
    }
    return manifest, rows


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
