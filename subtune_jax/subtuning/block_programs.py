"""Block programs: each distinct block of a network compiled by itself.

A training step runs forward from the first trained block, keeping the pullback of each
block, which takes a gradient back through it, and then backward. Weights of frozen
blocks get no gradient. No program belongs to a set of blocks: a new set compiles
nothing once its blocks were compiled frozen and trained, and alike blocks share theirs.

On several devices rows are spread and all else is replicated; XLA places reductions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import jaxprs, trees
from subtune_jax.core.contracts import Backbone, Params
from subtune_jax.core.devices import AXIS, Devices
from subtune_jax.data import dataset

Leaves = dict[str, jax.Array]  # path inside a block -> array


class Programs(NamedTuple):
    """The programs of a network's blocks.

    Attributes:
      backbone: the network.
      loss: (logits `[B, C]`, targets `[B, C]`) -> `[B]`.
      dtype: of the computation.
      devices: where it runs.
      compiled: key -> (program, its floating-point operations, see `jaxprs.counted`);
        empty at first, filled as needed.
      spent: `{"flops": 0.0}` at first: those of all calls so far.
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


Network = Mapping[str, BlockVariables]  # by block


def run(
    programs: Programs, network: Network, x: Any, start: str | None, stop: str | None
) -> jax.Array:
    """Blocks `start` (included) to `stop` (excluded; None: all) in evaluation mode.

    Args:
      programs: of the network.
      network: what its blocks compute with.
      x: what enters `start`; where that is None, pixels `[B, H, W, 3]` in [0, 255] or
        tokens, which enter the first block. It may still be on the host.
      start: a block, or None.
      stop: a block, or None.
    """
    backbone, x = programs.backbone, spread(programs, x)
    if start is None:
        enter = functools.partial(dataset.enter, backbone, dtype=programs.dtype)
        start, x = backbone.blocks[0], call(programs, ("enter",), enter, x)
    last = None if stop is None else backbone.blocks.index(stop)
    for block in backbone.blocks[backbone.blocks.index(start) : last]:
        name = backbone.alike.get(block, block)

        def forward(own: BlockVariables, x: jax.Array, name: str = name) -> jax.Array:
            return _apply(programs, name, own.params, own.stats, x)[0]

        x = call(programs, ("forward", name), forward, network[block], x)
    return x


class Gradient(NamedTuple):
    """The gradient of a batch.

    Attributes:
      loss: weighted mean over the batch.
      grads: block -> gradients of its trained leaves, the last block first.
      stats: block -> running statistics after the batch, where they are learnt.
    """

    loss: jax.Array
    grads: dict[str, Leaves]
    stats: dict[str, Params]


def gradient(
    programs: Programs,
    network: Network,
    trained: Mapping[str, Leaves],
    batch: tuple[Any, Any, Any],
    *,
    normalise: bool,
) -> Gradient:
    """The gradient of a batch by the trained leaves.

    Args:
      programs: of the network.
      network: what its blocks compute with, but for `trained`.
      trained: block -> float32 masters of the leaves that are trained.
      batch: what enters the first trained block, targets `[B, C]` and weights `[B]`;
        they may still be on the host.
      normalise: whether trained blocks normalise by the statistics of the batch.
    """
    order, (x, targets, weight) = programs.backbone.blocks, spread(programs, batch)
    path = order[min(order.index(block) for block in trained) :]
    pullbacks, stats = [], {}
    for block in path:
        leaves, own = trained.get(block, {}), network[block]
        learns = bool(leaves and own.stats) and normalise
        x, pullback, after = vjp(
            programs, block, leaves, own, x,
            through=block != path[0], weight=weight if learns else None,
        )  # fmt: skip
        pullbacks.append(pullback)
        if learns:
            stats[block] = after

    def mean(logits: jax.Array, targets: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(weight * programs.loss(logits, targets)) / jnp.sum(weight)

    slope = jax.value_and_grad(mean)
    loss, dy = call(programs, ("loss",), slope, x, targets, weight)
    grads: dict[str, Leaves] = {}
    for block, pullback in zip(reversed(path), reversed(pullbacks), strict=True):
        parts = pullback(dy)
        dy = parts[-1]
        if block in trained:
            grads[block] = parts[0]
    return Gradient(loss, grads, stats)


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

    Masters `trained` replace the block's own leaves. The pullback of a gradient by the
    output gives (gradients of `trained`, if there are any; gradient by `x`, if
    `through`). With `weight` `[B]` the block normalises by the batch.
    """
    name = programs.backbone.alike.get(block, block)
    frozen = {path: leaf for path, leaf in own.params.items() if path not in trained}

    def function(trained, frozen, stats, x, weight):
        def forward(trained: Leaves, x: jax.Array) -> tuple[jax.Array, Params]:
            cast = {path: leaf.astype(programs.dtype) for path, leaf in trained.items()}
            return _apply(programs, name, {**frozen, **cast}, stats, x, weight)

        if not trained:
            return jax.vjp(lambda x: forward({}, x), x, has_aux=True)
        if not through:
            return jax.vjp(lambda leaves: forward(leaves, x), trained, has_aux=True)
        return jax.vjp(forward, trained, x, has_aux=True)

    arguments = (trained, frozen, own.stats, x, weight)
    key = _form(("vjp", name, tuple(trained), through), arguments)
    y, pull, stats = call(programs, key, function, *arguments, whole_key=True)

    def pullback(dy: jax.Array) -> tuple[Any, ...]:
        # `pull` is a tree of residuals; its program belongs to `key`.
        name = (key, "pullback")
        return call(programs, name, lambda f, dy: f(dy), pull, dy, whole_key=True)

    return y, pullback, stats


def replicate(programs: Programs, tree: Any) -> Any:
    """`tree` on every device."""
    return jax.device_put(tree, NamedSharding(programs.devices.mesh, PartitionSpec()))


def spread(programs: Programs, rows: Any) -> Any:
    """Rows, a multiple of the number of devices, spread over those where not yet."""
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
        count = jaxprs.counted(lowered, program, programs.devices.size, split=False)
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
        {name: trees.nest(params)}, {name: stats} if stats else {}, x,
        training=() if weight is None else (name,), weight=weight,
        start=name, stop=order[order.index(name) + 1],
    )  # fmt: skip
    return y, after.get(name, {})
