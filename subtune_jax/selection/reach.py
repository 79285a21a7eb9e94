"""Reach: the leaves that a method may train, whatever its mask says now.

The head is no part of it unless a method says so: it is trained whole, and counted
apart. `start` is what methods begin with whose mask moves over whole leaves.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask
from subtune_jax.core.method import Evidence, Selection
from subtune_jax.selection import masks

REPEATED = r"(block|layer|hidden)\d[^/]*"  # names of the blocks that a network repeats
# All biases but those of norms; and LayerScale, which is called `scale1`, `scale2`.
BIASES = r"(?!.*norm)(.*/)?(bias|scale\d)"


def below(evidence: Evidence, among: str) -> dict[str, Any]:
    """The leaves below the head whose whole path matches `among`, by path.

    Raises:
      ValueError: there is none.
    """
    return masks.find(evidence.params, among, evidence.blocks[-1:])


def repeated(evidence: Evidence, pattern: str = REPEATED) -> dict[str, Any]:
    """The leaves of the blocks whose whole names match `pattern`, by path.

    Raises:
      ValueError: there is none.
    """
    return below(evidence, f"(?:{pattern})/.*")


def outside(evidence: Evidence, inside: Collection[str]) -> Mask:
    """The mask of all leaves below the head but those at the paths of `inside`."""
    rest = [path for path in _base(evidence) if path not in inside]
    return masks.fill(evidence.params, dict.fromkeys(rest, np.True_))


def biases(evidence: Evidence, mask: Mask) -> Mask:
    """The mask of what `BIASES` names below the head and `mask` leaves out.

    Nothing, where a network has no biases.
    """
    flags = trees.leaves(mask)
    named = [path for path in _base(evidence) if re.fullmatch(BIASES, path)]
    rest = {path: np.logical_not(flags[path]) for path in named}
    return masks.fill(evidence.params, rest)


def check_matrices(leaves: Mapping[str, Any]) -> None:
    """Refuses, by ValueError, leaves of less than two axes."""
    for path, leaf in leaves.items():
        shape = np.shape(leaf)
        if len(shape) < 2:
            what = f"{path!r} {shape} is no matrix"
            raise ValueError(f"{what}; name arrays of two axes or more")


def start(
    evidence: Evidence, among: str, head: bool, outside: bool, memory: Any = None
) -> Selection:
    """Everything of the leaves that `among` names, which are the reach.

    Args:
      evidence: read for its parameters and blocks.
      among: regular expression over whole paths.
      head: whether the mask moves over those of the head too; else it is trained whole.
      outside: whether all other leaves below the head ride along.
      memory: of the selection.

    Returns:
      Masks of reached leaves have the leaf's own shape, as `update` will return them.
      Those of the head are False: it is trained whether it is marked or not, and
      counted apart.

    Raises:
      ValueError: `among` matches nothing.
    """
    params, top = evidence.params, evidence.blocks[-1:]
    inside = masks.find(params, among, () if head else top)
    base = _base(evidence)
    rest = [path for path in base if path not in inside]
    marks = {
        path: np.full(np.shape(leaf), path in base) for path, leaf in inside.items()
    }
    return Selection(
        masks.fill(params, marks),
        masks.fill(params, dict.fromkeys(rest, np.True_)) if outside and base else None,
        memory,
        reach=masks.fill(params, dict.fromkeys(inside, np.True_)),
    )


def values(evidence: Evidence, selection: Selection) -> dict[str, np.ndarray]:
    """What the reached leaves hold, by path: new float32 arrays on the host."""
    reach = trees.leaves(selection.reach)
    return {
        path: np.array(leaf, np.float32)
        for path, leaf in trees.leaves(evidence.params).items()
        if reach[path]
    }


def _base(evidence: Evidence) -> dict[str, Any]:
    """All leaves below the head, by path."""
    head = evidence.blocks[-1]
    leaves = trees.leaves(evidence.params)
    return {path: leaf for path, leaf in leaves.items() if path.split("/")[0] != head}
