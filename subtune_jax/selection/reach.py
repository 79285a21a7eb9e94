"""What methods start from that move their mask over whole leaves."""

from typing import Any

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Selection
from subtune_jax.selection import masks


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
    found = masks.find(params, among, () if head else top)
    reach = masks.fill(params, dict.fromkeys(found, np.True_))
    marks = {
        path: np.full(np.shape(leaf), path.split("/")[0] not in top)
        for path, leaf in found.items()
    }
    below = any(path.split("/")[0] not in top for path in trees.leaves(params))
    extras = masks.besides(params, reach, ".*" if outside and below else None, top)
    return Selection(masks.fill(params, marks), extras, memory, reach=reach)


def leaves(evidence: Evidence, selection: Selection) -> dict[str, np.ndarray]:
    """What the reached leaves hold, by path: new float32 arrays on the host."""
    reach = trees.leaves(selection.reach)
    return {
        path: np.array(leaf, np.float32)
        for path, leaf in trees.leaves(evidence.params).items()
        if reach[path]
    }
