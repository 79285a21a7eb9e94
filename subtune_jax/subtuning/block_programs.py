"""Block programs: each distinct block of a network compiled by itself.

No program belongs to a set of blocks: a new set compiles nothing once its blocks have
been compiled frozen and trained, and blocks that are alike share their programs.

On several devices, rows of the batch are spread over them and all else is replicated;
XLA places the reductions.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import flops, trees
from subtune_jax.core.contracts import Backbone, Params
from subtune_jax.core.devices import AXIS, Devices
from subtune_jax.data import inputs

Leaves = dict[str, jax.Array]  # path inside a block -> array


class Programs(NamedTuple):
    """The programs of a network's blocks.

    Attributes:
      backbone: the network.
      loss: (logits `[B, C]`, targets `[B, C]`) -> `[B]`.
      dtype: of the computation.
      devices: where it runs.
      compiled: key -> (program, its floating-point operations, see `flops.counted`).
        Filled as needed.
      spent: `flops` of all calls so far.
    """

    backbone: Backbone
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    dtype: Any
    devices: Devices
    compiled: dict[Any, tuple[Any, float]]
    spent: dict[str, float]


class BlockVariables(NamedTuple):
    """What one block computes with: parameters in the compute type, and statistics."""

    params: Leaves
    stats: Params


def make(
    backbone: Backbone, loss: Callable[..., jax.Array], dtype: Any, devices: Devices
) -> Programs:
    """The programs of a network, nothing compiled yet."""
    return Programs(backbone, loss, dtype, devices, {}, {"flops": 0.0})


def on_devices(
    programs: Programs, params: Params, stats: Params, blocks: Iterable[str]
) -> dict[str, BlockVariables]:
    """What each of some `blocks` of a network computes with, on the devices."""
    found = {}
    for block in blocks:
        flat = trees.flatten(params.get(block, {}))
        cast = {path: jnp.asarray(leaf, programs.dtype) for path, leaf in flat.items()}
        found[block] = BlockVariables(
            *replicate(programs, (cast, stats.get(block, {})))
        )
    return found


def run(
    programs: Programs,
    network: Mapping[str, BlockVariables],
    x: Any,
    start: str | None,
    stop: str | None,
) -> jax.Array:
    """Blocks `start` (included) to `stop` (excluded; None: all) in evaluation mode.

    Args:
      programs: of the network.
      network: block -> what it computes with.
      x: what enters `start`; where `start` is None, pixels `[B, H, W, 3]` in [0, 255],
        or tokens, which enter the first block. May still be on the host.
      start: a block, or None.
      stop: a block, or None.
    """
    order, x = programs.backbone.blocks, spread(programs, x)
    if start is None:
        start = order[0]
        x = call(
            programs,
            ("enter",),
            lambda x: inputs.enter(programs.backbone, x, programs.dtype),
            x,
        )
    last = len(order) if stop is None else order.index(stop)
    for block in order[order.index(start) : last]:
        x = forward(programs, block, network[block], x)
    return x


def forward(
    programs: Programs, block: str, own: BlockVariables, x: jax.Array
) -> jax.Array:
    """The block's output, in evaluation mode."""
    name = programs.backbone.alike.get(block, block)

    def function(own: BlockVariables, x: jax.Array) -> jax.Array:
        return _apply(programs, name, own.params, own.stats, x)[0]

    return call(programs, ("forward", name), function, own, x)


def vjp(
    programs: Programs,
    block: str,
    trained: Leaves,
    own: BlockVariables,
    x: jax.Array,
    *,
    through: bool,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Callable[[jax.Array], tuple[Any, ...]], Params]:
    """A block's output, its pullback, and its statistics after the batch.

    The pullback of a gradient by the output gives (gradients of `trained`, if there are
    any; gradient by the input, if it is wanted).

    Args:
      programs: of the network.
      block: its name.
      trained: float32 masters of the leaves that are trained; they replace the block's.
      own: the rest of the block.
      x: its input.
      through: whether the gradient by `x` is wanted.
      weight: `[B]`; the block then normalises by the statistics of the batch.
    """
    name = programs.backbone.alike.get(block, block)
    frozen = {path: leaf for path, leaf in own.params.items() if path not in trained}

    def function(trained, frozen, stats, x, weight):
        def run(trained: Leaves, x: jax.Array) -> tuple[jax.Array, Params]:
            cast = {path: leaf.astype(programs.dtype) for path, leaf in trained.items()}
            params = {**frozen, **cast}
            return _apply(programs, name, params, stats, x, weight)

        if not trained:
            return jax.vjp(lambda x: run({}, x), x, has_aux=True)
        if not through:
            return jax.vjp(lambda leaves: run(leaves, x), trained, has_aux=True)
        return jax.vjp(run, trained, x, has_aux=True)

    given = (trained, frozen, own.stats, x, weight)
    key = _form(("vjp", name, tuple(trained), through), given)
    y, pull, stats = call(programs, key, function, *given, whole_key=True)

    def pullback(dy: jax.Array) -> tuple[Any, ...]:
        # `pull` is a tree of residuals; its program belongs to `key`.
        arguments = (key, "pullback"), lambda pull, dy: pull(dy), pull, dy
        return call(programs, *arguments, whole_key=True)

    return y, pullback, stats


def replicate(programs: Programs, tree: Any) -> Any:
    """`tree` on every device."""
    return jax.device_put(tree, NamedSharding(programs.devices.mesh, PartitionSpec()))


def spread(programs: Programs, rows: Any) -> Any:
    """A tree of rows, a multiple of the number of devices, spread over the devices.

    Arrays that are on devices stay as they are.
    """
    where = NamedSharding(programs.devices.mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda x: x if isinstance(x, jax.Array) else jax.device_put(x, where), rows
    )


def call(
    programs: Programs,
    key: Any,
    function: Callable[..., Any],
    *arguments: Any,
    whole_key: bool = False,
) -> Any:
    """`function(*arguments)`, compiled once for each key and form of the arguments.

    With `whole_key`, the key tells the form as well.
    """
    key = key if whole_key else _form(key, arguments)
    entry = programs.compiled.get(key)
    if entry is None:
        lowered = jax.jit(function).lower(*arguments)
        program = lowered.compile()
        count = flops.counted(lowered, program, programs.devices.size, split=False)
        entry = programs.compiled[key] = (program, count)
    programs.spent["flops"] += entry[1]
    result = entry[0](*arguments)
    if programs.devices.size > 1 and jax.default_backend() == "cpu":
        # Simulated devices share one pool of threads. Two programs that reduce over
        # devices, neither waiting for the other, can each hold half of the threads.
        jax.block_until_ready(result)
    return result


def _form(name: Any, arguments: Any) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    forms = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    return name, structure, forms


def _apply(
    programs: Programs,
    name: str,
    params: Leaves,
    stats: Params,
    x: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    order = (*programs.backbone.blocks, None)
    y, after = programs.backbone.apply(
        {name: trees.nest(params)},
        {name: stats} if stats else {},
        x,
        training=() if weight is None else (name,),
        weight=weight,
        start=name,
        stop=order[order.index(name) + 1],
    )
    return y, after.get(name, {})
