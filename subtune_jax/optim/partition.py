"""The plan of a run: what moves, from where the network is differentiated."""

from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core import elements, trees
from subtune_jax.core.contracts import Mask, Params, Variables
from subtune_jax.core.elements import Flat
from subtune_jax.core.method import Additive, Selection
from subtune_jax.optim import additive
from subtune_jax.selection import masks


class Plan(NamedTuple):
    """A selection made concrete.

    Attributes:
      mask: full tree of booleans, head included; of leaves that only have arrays
        merged into them it is False.
      counts: `selected`, `extras`, `head`, `base` elements and their `fraction`;
        elements of added arrays are `selected`.
      values: float32 masters of what is selected, host arrays, added ones included.
      positions: of the partial leaves, as `elements.arrange` shapes them.
      training: blocks that use and update batch statistics.
      start: the earliest block that moves.
      additive: the added arrays and the leaves they merge into, None for nothing.
      moving: path -> what the method chose to begin with, of leaves whose mask moves:
        booleans that broadcast to the leaf, or positions, which are not in `positions`.
      memory: of a moving method.
    """

    mask: Mask
    counts: dict[str, float]
    values: Flat
    positions: Flat
    training: tuple[str, ...]
    start: str
    additive: Additive | None = None
    moving: Flat = {}
    memory: Any = None

    @property
    def places(self) -> Flat:
        """The positions among what moves: the rest are booleans."""
        return _places(self.moving)


def make(
    variables: Variables,
    blocks: tuple[str, ...],
    selection: Selection,
    *,
    batch_norm: str = "frozen",
    moves: bool = False,
) -> Plan:
    """The plan for `selection`, with the whole head always in it.

    Args:
      variables: base and head.
      blocks: from input to output, the last one the head.
      selection: what a method returned.
      batch_norm: whether trained blocks use the batch's statistics.
      moves: whether the method moves its mask: positions, where it has no reach.

    Raises:
      ValueError: masks or added arrays are not of these parameters.
    """
    params = variables.params
    nothing = trees.map_leaves(lambda path, leaf: np.False_, params)
    whole_head = masks.from_blocks(params, blocks[-1])
    extras = nothing if selection.extras is None else selection.extras
    reach = nothing if selection.reach is None else selection.reach
    mask = masks.union(masks.union(selection.mask, extras), whole_head)
    mask = masks.union(mask, reach)
    shapes = {path: np.shape(leaf) for path, leaf in trees.flatten(params).items()}
    found = {p: np.asarray(w) for p, w in elements.find(params, mask).items()}
    chosen = trees.flatten(selection.mask)
    moving: Flat = {p: chosen[p] for p, flag in trees.flatten(reach).items() if flag}
    if moves and selection.reach is None:
        moving, found = found, {}
    positions = {p: elements.arrange(where, shapes[p]) for p, where in found.items()}
    values = elements.gather(positions | _places(moving), params, mask)
    values = {path: np.array(leaf, np.float32) for path, leaf in values.items()}
    values |= {p: np.array(x, np.float32) for p, x in (selection.values or {}).items()}
    added = selection.additive
    if added is not None:
        additive.check(params, added)
        values |= {name: np.array(array) for name, array in added.values.items()}
    touched = () if added is None else added.paths
    moved = {path.split("/")[0] for path in (*values, *touched)}
    return Plan(
        mask=mask,
        counts=_counts(params, selection, mask, whole_head),
        values=values,
        positions=positions,
        training=tuple(
            block for block in blocks if block in moved and batch_norm == "trained"
        ),
        start=next(block for block in blocks if block in moved),
        additive=added,
        moving=moving,
        memory=selection.memory,
    )


def _places(moving: Flat) -> Flat:
    return {p: where for p, where in moving.items() if where.dtype == np.int32}


def _counts(
    params: Params, selection: Selection, mask: Mask, whole_head: Mask
) -> dict[str, float]:
    """The three ways of counting: selected, as much as ever; what rides along; head."""
    head = masks.count(params, whole_head)
    body = masks.invert(whole_head)
    reached = selection.mask
    if selection.reach is not None:
        reached = masks.union(selection.mask, selection.reach)
    chosen = masks.count(params, masks.intersect(reached, body))
    added = additive.count(selection.additive)
    together = masks.count(params, masks.intersect(mask, body))
    base = masks.count(params, body)
    return {
        "selected": chosen + added,
        "extras": together - chosen,
        "head": head,
        "base": base,
        "fraction": (together + added) / max(base, 1),
    }
