"""Deltas on disk: a folder with `manifest.json` and one orbax folder of few arrays.

One array holds the values of one type, leaf after leaf; one the bytes of all gaps; one
the table of leaves, as JSON, whose rows say how to read their parts of the others.

The manifest names the orbax folder it belongs to, and replacing the manifest is one
rename: whoever reads sees the old delta or the new one, never a mixture. Digests of
the manifest and of every file are checked before anything is believed.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from subtune_jax.delta.leaves import Change

FORMAT = 1
MANIFEST = "manifest.json"
SHORT = 16  # hex digits that tell one content from another; fingerprints are whole


class Contents(NamedTuple):
    """A delta as it was read.

    Attributes:
      manifest: the JSON file: fingerprints, counts, meta, versions.
      leaves: path -> row, sorted by path: shape, dtype, short digests of "base" and
        "result"; of new leaves "keys" from the root; of changed leaves encoding, count
        and type of the gaps.
      changes: path -> `Change`, of changed leaves only.
    """

    manifest: dict[str, Any]
    leaves: dict[str, dict[str, Any]]
    changes: dict[str, Change]


def write(
    path: str | Path,
    manifest: Mapping[str, Any],
    leaves: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Change],
) -> None:
    """Writes or replaces the delta at `path`, atomically.

    Args:
      path: its parents are made; what is there must be a delta or an empty folder,
        see `refuse_other`.
      manifest: JSON; `format`, `folder`, `files` and `digest` are added.
      leaves: rows of all leaves; how to read its change is added to each.
      changes: as `Contents` says.
    """
    path = Path(path).absolute()
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a save that was killed
    partial.mkdir(parents=True)
    folder = f"arrays-{secrets.token_hex(4)}"  # never the name of an earlier one
    coding, arrays = pack(changes)
    table = {name: {**row, **coding.get(name, {})} for name, row in leaves.items()}
    arrays["leaves"] = np.frombuffer(json.dumps(table).encode(), np.uint8)
    with _alone() as orbax:
        orbax.save(partial / folder, arrays)
    files = _digests(partial / folder)
    manifest = {"format": FORMAT, **manifest, "folder": folder, "files": files}
    manifest["digest"] = _digest(_canonical(manifest))
    (partial / MANIFEST).write_text(json.dumps(manifest) + "\n")
    if (path / MANIFEST).exists():
        _replace(path, partial, folder)
    else:
        partial.rename(path)  # onto nothing, or onto an empty folder


def read(path: str | Path) -> Contents:
    """The delta at `path`, every digest checked.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no delta, of another format, or damaged.
    """
    path = Path(path).absolute()
    manifest = _read_manifest(path)
    folder = path / manifest["folder"]
    # Before orbax: its failed reads leave exceptions in threads of their own.
    digests = _digests(folder)
    for file, expected in manifest["files"].items():
        if digests.get(file) != expected:
            what = "is not intact" if file in digests else "is missing"
            raise ValueError(f"delta {path} is damaged: {folder.name}/{file} {what}")
    with _alone() as orbax:
        arrays = orbax.restore(folder)
    leaves = json.loads(arrays["leaves"].tobytes())
    rows = {name: row for name, row in leaves.items() if "encoding" in row}
    return Contents(manifest, leaves, unpack(rows, arrays))


def pack(
    changes: Mapping[str, Change],
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Changes as few arrays: (path -> how to read its part, name -> array).

    No array is empty: orbax stores none that is.
    """
    rows, parts = {}, {}
    for name, change in changes.items():
        rows[name] = {"encoding": change.encoding, "count": change.count}
        parts.setdefault(f"values_{change.values.dtype.name}", []).append(change.values)
        if change.gaps is not None:
            rows[name]["gaps"] = change.gaps.dtype.name
            parts.setdefault("gaps", []).append(change.gaps.view(np.uint8))
    arrays = {name: np.concatenate(each) for name, each in parts.items()}
    return rows, {name: array for name, array in arrays.items() if array.size}


def unpack(
    rows: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> dict[str, Change]:
    """The inverse of `pack`, for rows that know their `dtype` and `shape` as well."""
    ends: dict[str, int] = {}  # of what was read, in elements; of gaps, in bytes

    def take(array: str, length: int) -> np.ndarray:
        start = ends.get(array, 0)
        ends[array] = start + length
        return arrays[array][start : start + length]

    changes = {}
    for name, row in rows.items():
        dtype, size = jnp.dtype(row["dtype"]), int(np.prod(row["shape"], dtype=int))
        gaps = None
        if row["encoding"] == "sparse":
            size, kind = row["count"], np.dtype(row["gaps"])
            gaps = take("gaps", size * kind.itemsize).view(kind)
        values = np.empty(0, dtype)
        if size:
            values = take(f"values_{dtype.name}", size).view(dtype)
        changes[name] = Change(row["encoding"], row["count"], values, gaps)
    return changes


def size(path: str | Path) -> int:
    """Bytes of all files under `path`."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def refuse_other(path: str | Path) -> None:
    """Raises ValueError when something other than a delta is at `path`."""
    path = Path(path)
    if (path / MANIFEST).exists() or not path.exists():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise ValueError(f"{path} exists and is no delta; it is left alone")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no delta at {path}; there is no such folder")
    if not (path / MANIFEST).is_file():
        raise ValueError(f"no delta at {path}; the folder has no {MANIFEST}")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        written = manifest.pop("format")
        expected = manifest.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"delta {path} is damaged: {MANIFEST} does not parse"
        ) from error
    if written != FORMAT:
        raise ValueError(f"delta {path} has format {written!r}; this reads {FORMAT}")
    manifest = {"format": written, **manifest}
    if _digest(_canonical(manifest)) != expected:
        raise ValueError(f"delta {path} is damaged: {MANIFEST} is not intact")
    return manifest


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): _digest(file.read_bytes())[:SHORT]
        for file in files
    }


def _replace(path: Path, partial: Path, folder: str) -> None:
    """Moves `partial` into the delta at `path`; the manifest's rename decides."""
    (partial / folder).rename(path / folder)
    os.replace(partial / MANIFEST, path / MANIFEST)
    shutil.rmtree(partial)
    for old in path.glob("arrays-*"):
        if old.name != folder:
            shutil.rmtree(old)


def _alone() -> ocp.Checkpointer:
    """Orbax for this process only; no barrier waits for the others.

    Orbax's v1 API compares the path over all processes whoever is active (0.12.8),
    so this is its v0.
    """
    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"delta{process}",
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=True, use_zarr3=False, multiprocessing_options=options
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
