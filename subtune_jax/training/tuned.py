"""The tuned network after training, and the certificate that nothing else moved."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.optim import additive
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State


def variables(setup: Setup, program: Program, state: State) -> Variables:
    """All variables after training: the base with the trained float32 values in it.

    With averaging, the averaged values: what was evaluated is what is shipped. Additive
    arrays are merged here, in float32: what is shipped has the base's leaves and no
    others, and those merged into are in the delta in full. A file of the additive
    arrays alone would be smaller, and no tree to load.
    """
    values = devices.to_host(state.values if state.ema is None else state.ema)
    params = {p: np.array(x) for p, x in trees.flatten(setup.variables.params).items()}
    positions = dict(program.partition.positions)
    if state.moving is not None:
        moving = devices.to_host(state.moving)
        used = devices.to_host({path: state.partial[path] for path in moving.base})
        for path, leaf in used.items():  # what was selected once may have moved
            leaf = np.asarray(leaf, np.float32)
            params[path] = np.where(moving.ever[path], leaf, params[path])
            positions[path] = moving.mask[path]
    added = program.partition.additive
    arrays: dict[str, Any] = {}
    if added is not None:
        values, arrays = additive.split(added, values)
    for path, value in values.items():
        if path in positions:
            params[path].reshape(-1)[np.asarray(positions[path])] = value
        else:
            params[path] = value
    if added is not None:
        params |= additive.merge(added, params, arrays)
    return Variables(trees.nest(params), devices.to_host(state.stats))


def frozen_unchanged(
    setup: Setup, program: Program, state: State, tuned: Variables
) -> bool:
    """Whether every unselected element and frozen statistic has the base's bits.

    Compared are the arrays on the devices at the end of training, in the type of the
    computation, and the tree that is shipped. Leaves that arrays are merged into differ
    in the latter only: on the devices they too must be the base's.
    """
    base, shipped = map(trees.flatten, (setup.variables.params, tuned.params))
    before, after = map(trees.flatten, (setup.variables.stats, tuned.stats))
    mask = trees.flatten(program.partition.mask) | ever_selected(state)
    added = program.partition.additive
    movable = mask | dict.fromkeys(() if added is None else added.paths, np.True_)
    used = devices.to_host({**program.fixed.frozen, **state.partial})
    cases = [(shipped[path], leaf, movable[path]) for path, leaf in base.items()]
    for path, leaf in used.items():
        computed = np.asarray(jnp.asarray(base[path], program.recipe.dtype))
        cases.append((leaf, computed, mask[path]))
    for path, leaf in before.items():
        if path.split("/")[0] not in program.partition.training:
            cases.append((after[path], leaf, np.False_))
    for new, old, may_move in cases:
        bits = f"u{np.asarray(old).dtype.itemsize}"
        differs = np.array(new).view(bits) != np.array(old).view(bits)
        if np.any(differs & ~np.broadcast_to(may_move, differs.shape)):
            return False
    return True


def ever_selected(state: State) -> dict[str, Any]:
    """Path -> booleans, of leaves with a dynamic mask: was an element ever selected?"""
    return {} if state.moving is None else devices.to_host(state.moving.ever)
