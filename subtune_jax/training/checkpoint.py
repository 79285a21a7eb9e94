"""Checkpoints to resume from: the selected part of a run, through orbax.

What is saved is the list of arrays of a state, not its containers: orbax gives
some empty containers back as None without a word. The layout, a fingerprint of
paths, shapes and types, is compared before anything is loaded.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp


def save(folder: Path, step: int, state: Any) -> None:
    """Writes `state` (host arrays) as checkpoint `step`, keeping the last two.

    The write is atomic: a run killed in the middle finds the one before.
    """
    leaves = jax.tree.leaves(state)
    arrays = {f"{number:05d}": np.asarray(leaf) for number, leaf in enumerate(leaves)}
    with _open(folder) as checkpointer:
        checkpointer.save(
            step, arrays, custom_metadata={"layout": layout(state)}, overwrite=True
        )


def restore(folder: Path, like: Any) -> tuple[int, Any] | None:
    """(step, state) of the newest checkpoint, or None where there is none.

    Args:
      folder: that `save` wrote to.
      like: a state of the same structure, shapes and types.

    Raises:
      ValueError: the checkpoint has another layout.
    """
    if not folder.is_dir():
        return None
    with _open(folder) as checkpointer:
        if checkpointer.latest is None:
            return None
        step = checkpointer.latest.step
        found = (checkpointer.metadata(step).custom_metadata or {}).get("layout")
        if found != layout(like):
            raise ValueError(
                f"checkpoint {folder}/{step} has layout {found}; the run's is "
                f"{layout(like)}: another selection, optimizer or version wrote it"
            )
        leaves, structure = jax.tree.flatten(like)
        abstract = {
            f"{number:05d}": np.empty(np.shape(leaf), np.asarray(leaf).dtype)
            for number, leaf in enumerate(leaves)
        }
        arrays = checkpointer.load(step, abstract)
    ordered = [arrays[name] for name in sorted(arrays)]
    return step, jax.tree.unflatten(structure, ordered)


def layout(state: Any) -> str:
    """Sixteen hex digits of every leaf's path, shape and type."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    lines = [
        f"{jax.tree_util.keystr(path)} {np.shape(leaf)} {np.asarray(leaf).dtype}"
        for path, leaf in leaves
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _open(folder: Path) -> Any:
    training: Any = ocp.training
    return training.Checkpointer(
        str(folder.absolute()),
        preservation_policy=training.preservation_policies.LatestN(2),
        cleanup_tmp_directories=True,
    )
