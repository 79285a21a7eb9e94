"""Deltas: what fine-tuning changed, bit for bit, and nothing else.

A delta holds the new values of exactly the elements whose bits differ from the base
(-0.0 is not 0.0, and NaNs have payloads), where they stand, and fingerprints of the
base and of the result. Leaves that the base lacks, such as a new head, are held whole.
"""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.delta import changed as delta_changes
from subtune_jax.delta import checks, folder
from subtune_jax.delta.changed import Change, between
from subtune_jax.delta.folder import SHORT
from subtune_jax.delta.leaves import combine, digest, flatten, rebuild, walk

LIBRARIES = ("subtune-jax", "jax", "numpy", "orbax-checkpoint")


class Contents(NamedTuple):
    """A delta as it was read.

    Attributes:
      manifest: the JSON beside the arrays: fingerprints, meta, versions.
      leaves: path -> shape, dtype, short digests of "base" and "result"; of changed
        leaves encoding and count as well. Sorted by path.
      changes: path -> `Change`, of changed leaves only.
    """

    manifest: dict[str, Any]
    leaves: dict[str, dict[str, Any]]
    changes: dict[str, Change]


def save(
    path: str | Path, base: Any, tuned: Any, meta: Any = None, mask: Any = None
) -> Path:
    """Writes what turns `base` into `tuned`, atomically, and returns `path`.

    In a run of several processes all may call: process 0 writes, nobody waits.

    Args:
      path: a folder; a delta that is there already is replaced.
      base: nested dict of arrays, or `Variables`.
      tuned: all leaves of `base`, of the same shapes and types, and perhaps more.
      meta: any JSON.
      mask: where leaves of the base may differ; broadcasts. Beside `Variables`, a
        mask of the parameters will do. It is checked, not stored.

    Raises:
      ValueError: a leaf is missing, is no array, has another shape or type, or changed
        outside `mask`; `meta` is no JSON; something else is at `path`.
    """
    folder.refuse_other(path)
    try:
        json.dumps(meta)
    except TypeError as error:
        raise ValueError(f"meta is no JSON: {error}") from error
    before, after = flatten(base), flatten(tuned)
    checks.refuse_mismatch(before, after)
    if mask is not None:
        checks.refuse_outside(mask, base, before, after)
    if jax.process_index() == 0:
        changes = {name: between(before.get(name), new) for name, new in after.items()}
        changes = {name: change for name, change in changes.items() if change}
        _write(Path(path), before, tuned, changes, meta)
    return Path(path)


def load(path: str | Path, base: Any) -> Any:
    """The tuned tree, bit for bit, of the type of `base`.

    Leaves that did not change are those of `base` itself; changed ones are jax arrays
    where the base's are, NumPy arrays otherwise.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: `base` is not the delta's base (the first leaf that differs is
        named), or the delta is damaged.
    """
    contents = read(path)
    before = flatten(base)
    digests = {name: digest(array) for name, array in before.items()}
    checks.refuse_base(contents.manifest, contents.leaves, before, digests)
    changed = {}
    for name, change in contents.changes.items():
        leaf = contents.leaves[name]
        changed[name] = delta_changes.apply(change, before.get(name), leaf["shape"])
        digests[name] = digest(changed[name])
        if digests[name][:SHORT] != leaf["result"]:
            raise ValueError(f"delta {path} is damaged: leaf {name!r} is not intact")
    if combine(digests) != contents.manifest["result_fingerprint"]:
        raise ValueError(f"delta {path} is damaged: the result is not what was saved")
    rows = contents.leaves
    keys = {name: rows[name]["keys"] for name in changed if name not in before}
    return rebuild(base, changed, keys)


def info(path: str | Path) -> dict[str, Any]:
    """What a delta says of itself, integrity checked; needs no base.

    Keys: `format`, `base_fingerprint`, `result_fingerprint`, `meta`, `versions`;
    `bytes` on disk; `count` of changed elements; `leaves`, path -> row of each changed
    leaf (encoding, count, size, shape, dtype); `unchanged`, the number of the others.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no delta, or damaged.
    """
    contents = read(path)
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


def fingerprint(tree: Any) -> str:
    """Hex sha256 of the content of `tree`: sorted paths, types, shapes and bytes.

    >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": -np.zeros(2)})
    False
    """
    return combine({name: digest(array) for name, array in flatten(tree).items()})


def read(path: str | Path) -> Contents:
    """The delta at `path`, checked against its own digests; errors as `load`."""
    manifest, arrays = folder.read(path)
    leaves = json.loads(arrays["leaves"].tobytes())
    rows = {name: row for name, row in leaves.items() if "encoding" in row}
    return Contents(manifest, leaves, delta_changes.unpack(rows, arrays))


def _write(
    path: Path,
    before: Mapping[str, np.ndarray],
    tuned: Any,
    changes: Mapping[str, Change],
    meta: Any,
) -> None:
    rows, arrays = delta_changes.pack(changes)
    bases = {name: digest(array) for name, array in before.items()}
    results = dict(bases)
    after = flatten(tuned)
    leaves: dict[str, dict[str, Any]] = {}
    for name, (keys, _) in walk(tuned).items():
        new = after[name]
        leaves[name] = {"shape": new.shape, "dtype": new.dtype.name}
        if name in before:
            leaves[name]["base"] = bases[name][:SHORT]
        else:
            leaves[name]["keys"] = keys
        if name in changes:
            results[name] = digest(new)
            leaves[name] |= {"result": results[name][:SHORT], **rows[name]}
    arrays["leaves"] = np.frombuffer(json.dumps(leaves).encode(), np.uint8)
    manifest = {
        "base_fingerprint": combine(bases),
        "result_fingerprint": combine(results),
        "changed": {name: change.count for name, change in changes.items()},
        "meta": meta,
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }
    folder.write(path, manifest, arrays)
