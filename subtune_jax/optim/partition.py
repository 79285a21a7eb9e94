"""The partition of a network: leaves trained whole, in part, or not at all."""

import functools
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Variables
from subtune_jax.core.method import Additive, Selection
from subtune_jax.core.trees import Flat
from subtune_jax.optim import additive
from subtune_jax.selection import masks


class Partition(NamedTuple):
    """A selection made concrete: what moves, from where the network is differentiated.

    Attributes:
      mask: full tree of booleans, head included; of leaves that only have arrays
        merged into them it is False.
      counts: `selected`, `extras`, `head`, `base` elements and their `fraction`;
        elements of additive arrays are `selected`.
      values: float32 masters of what is selected, host arrays, additive ones included.
      positions: of the partial leaves, as `trees.arrange` shapes them.
      training: blocks that use and update batch statistics.
      start: the earliest block that moves.
      additive: the additive arrays and the leaves they merge into, None for nothing.
      moving: path -> what the method chose to begin with, of leaves whose mask is
        dynamic: booleans that broadcast to the leaf, or positions, which are not in
        `positions`.
      memory: of a dynamic method.
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
        return {p: at for p, at in self.moving.items() if at.dtype == np.int32}


def make(
    variables: Variables,
    blocks: tuple[str, ...],
    selection: Selection,
    *,
    batch_norm: str = "frozen",
    moves: bool = False,
) -> Partition:
    """The partition by `selection`, with the whole head always trained.

    Args:
      variables: base and head.
      blocks: from input to output, the last one the head.
      selection: what a method returned.
      batch_norm: whether trained blocks use the batch's statistics.
      moves: whether the method moves its mask: positions, where it has no reach.

    Raises:
      ValueError: masks or additive arrays are not of these parameters.
    """
    params = trees.leaves(variables.params)
    trees_of_flags = selection.mask, selection.extras, selection.reach
    for flags in trees_of_flags:
        if flags is not None:
            masks.check(variables.params, flags)
    selected, extras, reach = (trees.leaves(f or {}) for f in trees_of_flags)
    mask = {}
    for path in params:
        flags = [some.get(path, np.False_) for some in (selected, extras, reach)]
        whole = np.bool_(path.split("/")[0] == blocks[-1])
        mask[path] = functools.reduce(np.logical_or, flags, whole)
    partial = {p: np.asarray(at) for p, at in trees.find(params, mask).items()}
    moving: Flat = {p: selected[p] for p, flag in reach.items() if flag}
    if moves and selection.reach is None:
        moving, partial = partial, {}
    positions = {p: trees.arrange(a, np.shape(params[p])) for p, a in partial.items()}
    places = {p: at for p, at in moving.items() if at.dtype == np.int32}
    values = trees.gather(positions | places, params, mask)
    values |= selection.values or {}
    values = {path: np.array(leaf, np.float32) for path, leaf in values.items()}
    added, touched = selection.additive, ()
    if added is not None:
        additive.check(variables.params, added)
        values |= {name: np.array(array) for name, array in added.values.items()}
        touched = added.paths
    moved = {path.split("/")[0] for path in (*values, *touched)}
    trained = tuple(block for block in blocks if block in moved)
    return Partition(
        mask=trees.rebuild(variables.params, mask),
        counts=_counts(params, blocks[-1], selected, reach, mask, added),
        values=values,
        positions=positions,
        training=trained if batch_norm == "trained" else (),
        start=trained[0],
        additive=added,
        moving=moving,
        memory=selection.memory,
    )


def _counts(
    params: Flat,
    head: str,
    selected: Flat,
    reach: Flat,
    mask: Flat,
    added: Additive | None,
) -> dict[str, float]:
    """The three ways of counting: selected, as much as ever; what rides along; head."""
    counts = {"selected": 0, "extras": 0, "head": 0, "base": 0}
    for path, leaf in params.items():
        size = np.size(leaf)
        if path.split("/")[0] == head:
            counts["head"] += size
            continue
        counts["base"] += size
        flags = np.logical_or(selected[path], reach.get(path, np.False_))
        here, together = (
            int(np.count_nonzero(some)) * (size // max(np.size(some), 1))
            for some in (flags, mask[path])
        )
        counts["selected"] += here
        counts["extras"] += together - here
    if added is not None:
        counts["selected"] += additive.count(added)
    trained = counts["selected"] + counts["extras"]
    return counts | {"fraction": trained / max(counts["base"], 1)}
