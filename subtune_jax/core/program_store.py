"""The program store: what was compiled, and the operations of all its calls.

A store is of one network on the devices of one run. What its keys do not tell is the
same for all its programs: those of runs that differ in their seed alone may share one.
"""

from typing import Any, NamedTuple

import jax

from subtune_jax.core import jaxprs
from subtune_jax.core.devices import Devices


class Store(NamedTuple):
    """Compiled programs.

    Attributes:
      devices: where they run.
      compiled: key -> (program, its floating-point operations, see `jaxprs.counted`).
      spent: `flops`, those of all calls so far.
    """

    devices: Devices
    compiled: dict[Any, tuple[Any, float]]
    spent: dict[str, float]


def make(devices: Devices, spent: dict[str, float] | None = None) -> Store:
    """A store that holds nothing yet; `spent` of another counts for both."""
    return Store(devices, {}, {"flops": 0.0} if spent is None else spent)


def call_split(
    store: Store, key: Any, function: Any, state: Any, fixed: Any, piece: Any
) -> Any:
    """`function(state, fixed, piece)`, of `devices.parallel`, compiled if it must be.

    The key tells the form of the state and of what is fixed, which are large; that of
    the piece is added.
    """
    arguments = state, fixed, piece
    program, flops = split(store, key, function, *arguments)
    store.spent["flops"] += flops
    return program(*arguments)


def split(
    store: Store, key: Any, function: Any, state: Any, fixed: Any, piece: Any
) -> tuple[Any, float]:
    """What `call_split` calls: the program, its operations on all devices."""
    arguments, whole = (state, fixed, piece), (key, shapes(piece))
    entry = store.compiled.get(whole)
    return entry or compiled(store, whole, function, arguments, split=True)


def compiled(
    store: Store, key: Any, function: Any, arguments: tuple[Any, ...], *, split: bool
) -> tuple[Any, float]:
    """A jitted function compiled for these arguments, and kept as `key`.

    Args:
      store: that keeps it.
      key: of the program.
      function: jitted.
      arguments: whose shapes it is compiled for.
      split: whether it is written for one device, as inside `shard_map`.

    Returns:
      The program, and its floating-point operations on all devices.
    """
    lowered = function.lower(*arguments)
    program = lowered.compile()
    count = jaxprs.counted(lowered, program, store.devices.size, split=split)
    store.compiled[key] = program, count
    return program, count


def shapes(tree: Any) -> Any:
    """Structure, shapes and types of a tree, to be part of a key."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
