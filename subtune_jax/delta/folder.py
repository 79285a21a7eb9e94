"""Deltas on disk: a folder with `manifest.json` and one orbax folder of arrays.

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
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

FORMAT = 1
MANIFEST = "manifest.json"
SHORT = 16  # hex digits that tell one content from another; fingerprints are whole


def write(
    path: str | Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes or replaces the delta at `path`, atomically.

    Args:
      path: its parents are made; what is there must be a delta or an empty folder,
        see `refuse_other`.
      manifest: JSON; `format`, `folder`, `files` and `digest` are added.
      arrays: non-empty arrays, one at least.
    """
    path = Path(path).absolute()
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a save that was killed
    partial.mkdir(parents=True)
    folder = f"arrays-{secrets.token_hex(4)}"  # never the name of an earlier one
    with _alone() as orbax:
        orbax.save(partial / folder, dict(arrays))
    files = _digests(partial / folder)
    manifest = {"format": FORMAT, **manifest, "folder": folder, "files": files}
    manifest["digest"] = digest(_canonical(manifest))
    (partial / MANIFEST).write_text(json.dumps(manifest) + "\n")
    if (path / MANIFEST).exists():
        _replace(path, partial, folder)
    else:
        partial.rename(path)  # onto nothing, or onto an empty folder


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest and the arrays at `path`, every digest checked.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is no delta, of another format, or damaged.
    """
    path = Path(path).absolute()
    manifest = _read_manifest(path)
    folder = path / manifest["folder"]
    # Before orbax: its failed reads leave exceptions in threads of their own.
    found = _digests(folder)
    for file, expected in manifest["files"].items():
        if found.get(file) != expected:
            what = "is not intact" if file in found else "is missing"
            raise ValueError(f"delta {path} is damaged: {folder.name}/{file} {what}")
    with _alone() as orbax:
        return manifest, orbax.restore(folder)


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


def digest(content: bytes | np.ndarray, head: bytes = b"") -> str:
    """Hex sha256 of `head`, then bytes or an array's elements in row-major order."""
    total = hashlib.sha256(head)
    if isinstance(content, np.ndarray):  # as bytes: hashlib knows no bfloat16
        buffer: Any = content.reshape(-1).view(np.uint8)
        total.update(buffer)
    else:
        total.update(content)
    return total.hexdigest()


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
    if digest(_canonical(manifest)) != expected:
        raise ValueError(f"delta {path} is damaged: {MANIFEST} is not intact")
    return manifest


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): digest(file.read_bytes())[:SHORT]
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
