"""Pieces: each distinct block of a network compiled by itself, and composed in Python.

A step that trains some blocks runs forward from the first of them, keeping of every
block the function that pulls a gradient back through it, and then backward. Blocks
below the first trained one are not run; weights of frozen blocks get no gradient. No
program belongs to a set of blocks: a new set compiles nothing once its blocks have
been compiled frozen and trained, and blocks that are alike share their programs.

On several devices, rows of the batch are spread over them and all else is replicated;
XLA places the reductions.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import flops as costs
from subtune_jax.core import trees
from subtune_jax.core.contracts import Backbone, Params
from subtune_jax.core.devices import AXIS, Devices
from subtune_jax.data import dataset

Leaves = dict[str, jax.Array]  # path inside a block -> array


class Pieces(NamedTuple):
    """A network in pieces.

    Attributes:
      backbone: the network.
      loss: (logits `[B, C]`, targets `[B, C]`) -> `[B]`.
      dtype: of the computation.
      devices: where it runs.
      programs: what has been compiled: key -> (program, its floating-point operations,
        see `flops.counted`). Filled as needed.
      spent: `flops` of all calls so far.
    """

    backbone: Backbone
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    dtype: Any
    devices: Devices
    programs: dict[Any, tuple[Any, float]]
    spent: dict[str, float]


class Own(NamedTuple):
    """What belongs to one block: parameters in the compute type, and statistics."""

    params: Leaves
    stats: Params


def make(
    backbone: Backbone, loss: Callable[..., jax.Array], dtype: Any, devices: Devices
) -> Pieces:
    """A network in pieces, nothing compiled yet."""
    return Pieces(backbone, loss, dtype, devices, {}, {"flops": 0.0})


def own(pieces: Pieces, params: Params, stats: Params, block: str) -> Own:
    """The block's part of a whole network, on the devices."""
    flat = trees.flatten(params.get(block, {}))
    cast = {path: jnp.asarray(leaf, pieces.dtype) for path, leaf in flat.items()}
    return Own(*replicate(pieces, (cast, stats.get(block, {}))))


def enter(pieces: Pieces, images: jax.Array) -> jax.Array:
    """Pixels `[B, H, W, 3]` in [0, 255], or tokens, as the first block takes them."""

    def function(images: jax.Array) -> jax.Array:
        return dataset.enter(pieces.backbone, images, pieces.dtype)

    return call(pieces, ("enter",), function, images)


def forward(pieces: Pieces, block: str, mine: Own, x: jax.Array) -> jax.Array:
    """The block's output, in evaluation mode."""
    name = representative(pieces, block)

    def function(mine: Own, x: jax.Array) -> jax.Array:
        return _apply(pieces, name, mine.params, mine.stats, x)[0]

    return call(pieces, ("forward", name), function, mine, x)


class Ahead(NamedTuple):
    """A block's output, how to pull a gradient back through it, its statistics."""

    y: jax.Array
    pull: Callable[[jax.Array], tuple[Any, ...]]
    stats: Params


def ahead(
    pieces: Pieces,
    block: str,
    trained: Leaves,
    mine: Own,
    x: jax.Array,
    *,
    through: bool,
    weight: jax.Array | None = None,
) -> Ahead:
    """Runs a block forward for a gradient of its `trained` leaves, its input, or both.

    Args:
      pieces: the network.
      block: its name.
      trained: float32 masters of the leaves that are trained; they replace the block's.
      mine: the rest of the block.
      x: its input.
      through: whether the gradient of `x` is wanted.
      weight: `[B]`; the block then normalises by the statistics of the batch.

    Returns:
      `pull` gives (gradients of `trained`, if there are any; gradient of `x`, if it is
      wanted).
    """
    name = representative(pieces, block)
    frozen = {path: leaf for path, leaf in mine.params.items() if path not in trained}

    def function(trained, frozen, stats, x, weight):
        def run(trained: Leaves, x: jax.Array) -> tuple[jax.Array, Params]:
            cast = {path: leaf.astype(pieces.dtype) for path, leaf in trained.items()}
            return _apply(pieces, name, {**frozen, **cast}, stats, x, weight)

        if not trained:
            return jax.vjp(lambda x: run({}, x), x, has_aux=True)
        if not through:
            return jax.vjp(lambda leaves: run(leaves, x), trained, has_aux=True)
        return jax.vjp(run, trained, x, has_aux=True)

    given = (trained, frozen, mine.stats, x, weight)
    key = _key(("ahead", name, tuple(trained), through), given)
    y, back, stats = call(pieces, key, function, *given, whole_key=True)

    def pull(dy: jax.Array) -> tuple[Any, ...]:
        # The pulled function is a tree of residuals; its program belongs to `key`.
        return call(pieces, (key, "pull"), lambda b, d: b(d), back, dy, whole_key=True)

    return Ahead(y, pull, stats)


def top(
    pieces: Pieces, logits: jax.Array, targets: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The weighted mean loss, and its gradient by `logits`."""

    def loss(logits: jax.Array, targets: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(weight * pieces.loss(logits, targets)) / jnp.sum(weight)

    return call(pieces, ("top",), jax.value_and_grad(loss), logits, targets, weight)


def replicate(pieces: Pieces, tree: Any) -> Any:
    """`tree` on every device."""
    return jax.device_put(tree, sharding(pieces, PartitionSpec()))


def spread(pieces: Pieces, rows: np.ndarray) -> jax.Array:
    """`rows`, a multiple of the number of devices, spread over the devices."""
    return jax.device_put(rows, sharding(pieces, PartitionSpec(AXIS)))


def call(
    pieces: Pieces,
    key: Any,
    function: Callable[..., Any],
    *given: Any,
    whole_key: bool = False,
) -> Any:
    """`function(*given)`, compiled once for each key and form of the arguments.

    With `whole_key`, the key tells the form as well.
    """
    key = key if whole_key else _key(key, given)
    found = pieces.programs.get(key)
    if found is None:
        lowered = jax.jit(function).lower(*given)
        program = lowered.compile()
        flops = costs.counted(lowered, program, pieces.devices.size, split=False)
        found = pieces.programs[key] = (program, flops)
    pieces.spent["flops"] += found[1]
    result = found[0](*given)
    if pieces.devices.size > 1 and jax.default_backend() == "cpu":
        # Simulated devices share one pool of threads. Two programs that reduce over
        # devices, neither waiting for the other, can each hold half of the threads.
        jax.block_until_ready(result)
    return result


def _key(name: Collection[Any], given: Any) -> Any:
    leaves, structure = jax.tree.flatten(given)
    forms = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    return name, structure, forms


def representative(pieces: Pieces, block: str) -> str:
    """The name that the programs of `block` go by: alike blocks share them."""
    return pieces.backbone.alike.get(block, block)


def _apply(
    pieces: Pieces,
    name: str,
    params: Leaves,
    stats: Params,
    x: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    order = (*pieces.backbone.blocks, None)
    y, moved = pieces.backbone.apply(
        {name: trees.nest(params)},
        {name: stats} if stats else {},
        x,
        training=() if weight is None else (name,),
        weight=weight,
        start=name,
        stop=order[order.index(name) + 1],
    )
    return y, moved.get(name, {})


def sharding(pieces: Pieces, spec: PartitionSpec) -> NamedSharding:
    """Where an array of that partition lies."""
    return NamedSharding(pieces.devices.mesh, spec)
