"""The plan of a run: what moves, from where the network is differentiated."""

from typing import NamedTuple

import numpy as np

from subtune_jax import masks, sparse, trees
from subtune_jax.contracts import Mask, Selection, Variables
from subtune_jax.network import HEAD
from subtune_jax.sparse import Flat


class Plan(NamedTuple):
    """A selection made concrete.

    Attributes:
      mask: full tree of booleans, head included.
      counts: `selected`, `extras`, `head`, `base` elements and their `fraction`.
      values: float32 masters of what is selected, host arrays.
      positions: of the partial leaves, `[k]`, or `[O, K]` by `sparse.arrange`.
      training: blocks that use and update batch statistics.
      start: the earliest block that moves.
    """

    mask: Mask
    counts: dict[str, float]
    values: Flat
    positions: Flat
    training: tuple[str, ...]
    start: str


def make(
    variables: Variables,
    blocks: tuple[str, ...],
    selection: Selection,
    *,
    batch_norm: str = "frozen",
) -> Plan:
    """The plan for `selection`, with the whole head always in it."""
    params = variables.params
    nothing = trees.map_leaves(lambda path, leaf: np.False_, params)
    whole_head = trees.map_leaves(
        lambda path, leaf: np.bool_(path.startswith(f"{HEAD}/")), params
    )
    extras = nothing if selection.extras is None else selection.extras
    mask = masks.union(masks.union(selection.mask, extras), whole_head)
    shapes = {path: np.shape(leaf) for path, leaf in trees.flatten(params).items()}
    positions = {
        path: sparse.arrange(np.asarray(where), shapes[path])
        for path, where in sparse.find(params, mask).items()
    }
    values = sparse.gather(positions, params, mask)
    values = {path: np.array(leaf, np.float32) for path, leaf in values.items()}
    moving = {path.split("/")[0] for path in values}
    return Plan(
        mask=mask,
        counts=_counts(params, selection.mask, mask, whole_head),
        values=values,
        positions=positions,
        training=tuple(
            block for block in blocks if block in moving and batch_norm == "trained"
        ),
        start=next(block for block in blocks if block in moving),
    )


def _counts(params, selected: Mask, mask: Mask, whole_head: Mask) -> dict[str, float]:
    """The three ways of counting: selected; what rides along; the head."""
    head = masks.count(params, whole_head)
    body = masks.invert(whole_head)
    chosen = masks.count(params, masks.intersect(selected, body))
    together = masks.count(params, masks.intersect(mask, body))
    base = masks.count(params, body)
    return {
        "selected": chosen,
        "extras": together - chosen,
        "head": head,
        "base": base,
        "fraction": together / base,
    }
