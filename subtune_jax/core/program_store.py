"""The program store: what was compiled, and the operations of all its calls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from subtune_jax.core import jaxprs
from subtune_jax.core.devices import Devices


class Store(NamedTuple):
    """Compiled programs of one network on the devices of one run.

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


def call(
    store: Store,
    key: Any,
    function: Callable[..., Any],
    *arguments: Any,
    whole_key: bool = False,
) -> Any:
    """`function(*arguments)`, compiled once for each key and form of the arguments.

    With `whole_key`, the key tells the form as well.
    """
    key = key if whole_key else form(key, arguments)
    if key not in store.compiled:
        compiled(store, key, jax.jit(function), arguments, split=False)
    result = _run(store, key, arguments)
    if store.devices.size > 1 and jax.default_backend() == "cpu":
        # Simulated devices share one pool of threads. Two programs that reduce over
        # devices, neither waiting for the other, can each hold half of the threads.
        jax.block_until_ready(result)
    return result


def call_split(store: Store, key: Any, function: Any, *arguments: Any) -> Any:
    """The same of a function of `devices.parallel`; its key tells the form."""
    if key not in store.compiled:
        compiled(store, key, function, arguments, split=True)
    return _run(store, key, arguments)


def compiled(
    store: Store, key: Any, function: Any, arguments: tuple[Any, ...], *, split: bool
) -> tuple[Any, float]:
    """Compiles a jitted function for these arguments, and keeps it as `key`.

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


def form(name: Any, arguments: Any) -> Any:
    """A key: the name, and the structure, shapes, types and places of arguments."""
    leaves, structure = jax.tree.flatten(arguments)
    forms = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    return name, structure, forms


def _run(store: Store, key: Any, arguments: tuple[Any, ...]) -> Any:
    program, flops = store.compiled[key]
    store.spent["flops"] += flops
    return program(*arguments)
