"""The plan of a run: what moves, from where the network is differentiated."""

from typing import NamedTuple

import numpy as np

from subtune_jax import additive, masks, sparse, trees
from subtune_jax.contracts import Additive, Mask, Params, Selection, Variables
from subtune_jax.network import HEAD
from subtune_jax.sparse import Flat


class Plan(NamedTuple):
    """A selection made concrete.

    Attributes:
      mask: full tree of booleans, head included; of leaves that only have arrays
        merged into them it is False.
      counts: `selected`, `extras`, `head`, `base` elements and their `fraction`;
        elements of added arrays are `selected`.
      values: float32 masters of what is selected, host arrays, added ones included.
      positions: of the partial leaves, as `sparse.arrange` shapes them.
      training: blocks that use and update batch statistics.
      start: the earliest block that moves.
      additive: the added arrays and the leaves they merge into, None for nothing.
    """

    mask: Mask
    counts: dict[str, float]
    values: Flat
    positions: Flat
    training: tuple[str, ...]
    start: str
    additive: Additive | None = None


def make(
    variables: Variables,
    blocks: tuple[str, ...],
    selection: Selection,
    *,
    batch_norm: str = "frozen",
) -> Plan:
    """The plan for `selection`, with the whole head always in it.

    Raises:
      ValueError: masks or added arrays are not of these parameters.
    """
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
    added = selection.additive
    if added is not None:
        additive.check(params, added)
        values |= {name: np.array(array) for name, array in added.values.items()}
    touched = () if added is None else added.paths
    moving = {path.split("/")[0] for path in (*values, *touched)}
    return Plan(
        mask=mask,
        counts=_counts(params, selection, mask, whole_head),
        values=values,
        positions=positions,
        training=tuple(
            block for block in blocks if block in moving and batch_norm == "trained"
        ),
        start=next(block for block in blocks if block in moving),
        additive=added,
    )


def _counts(
    params: Params, selection: Selection, mask: Mask, whole_head: Mask
) -> dict[str, float]:
    """The three ways of counting: selected; what rides along; the head."""
    head = masks.count(params, whole_head)
    body = masks.invert(whole_head)
    chosen = masks.count(params, masks.intersect(selection.mask, body))
    added = additive.count(selection.additive)
    together = masks.count(params, masks.intersect(mask, body))
    base = masks.count(params, body)
    return {
        "selected": chosen + added,
        "extras": together - chosen,
        "head": head,
        "base": base,
        "fraction": (together + added) / base,
    }
