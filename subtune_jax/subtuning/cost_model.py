"""The cost model: what a candidate trains and what a step of it takes, untrained yet.

Floating-point operations are those that the network needs (see `flops`), from the
earliest trained block on: what lies below is read from the activation cache.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import flops, trees
from subtune_jax.core.contracts import HEAD
from subtune_jax.core.flops import Operations
from subtune_jax.data import dataset
from subtune_jax.subtuning import trials
from subtune_jax.subtuning.candidates import Set
from subtune_jax.training.setup import Setup


def cost_function(
    setup: Setup, leaves: Callable[[Set], Sequence[str]]
) -> Callable[[Set], dict[str, float]]:
    """A function: set -> `parameters` of the base that it trains, and step `flops`.

    The network is traced when the function is first called.

    Args:
      setup: task, network, base.
      leaves: set -> paths of the leaves that it trains.
    """
    flat, alike = trees.flatten(setup.base.params), setup.backbone.alike
    shapes = functools.cache(lambda: _inputs(setup))
    counted: dict[Any, Operations] = {}

    def block_needs(block: str, own: tuple[str, ...], through: bool) -> Operations:
        x = shapes()[block]
        key = (alike.get(block, block), x.shape, own, through)
        if key not in counted:
            counted[key] = _needs(setup, block, own, x, through)
        return counted[key]

    def cost(names: Set) -> dict[str, float]:
        paths = list(leaves(names))
        by_block: dict[str, list[str]] = {HEAD: ["kernel", "bias"]}
        for path in paths:
            block, leaf = path.split("/", 1)
            by_block.setdefault(block, []).append(leaf)
        order = setup.backbone.blocks
        first = min(order.index(block) for block in by_block)
        total = 0.0
        for block in order[first:]:
            own = tuple(sorted(by_block.get(block, [])))
            needs = block_needs(block, own, block != order[first])
            total += needs.forward + needs.backward
        return {"parameters": sum(int(flat[p].size) for p in paths), "flops": total}

    return cost


def _inputs(setup: Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """What enters each block, for one batch; texts are as long as in trials."""
    params, stats = setup.variables
    example = trials.examples(setup).read(np.zeros(1, int))
    shape = (setup.settings["batch_size"], *example.shape[1:])
    pixels = jax.ShapeDtypeStruct(shape, example.dtype)
    x: Any = jax.eval_shape(
        lambda pixels: dataset.enter(setup.backbone, pixels, jnp.float32), pixels
    )
    entering, order = {}, (*setup.backbone.blocks, None)
    for block, stop in zip(order, order[1:], strict=False):
        entering[block] = x
        x = jax.eval_shape(
            lambda params, stats, x, b=block, s=stop: setup.backbone.apply(
                params, stats, x, start=b, stop=s
            )[0],
            params,
            stats,
            x,
        )
    return entering


def _needs(
    setup: Setup, block: str, own: tuple[str, ...], x: Any, through: bool
) -> Operations:
    """Forward, and backward to the leaves `own` and, if `through`, to the input."""
    order = (*setup.backbone.blocks, None)
    stop, stats = order[order.index(block) + 1], setup.variables.stats
    flat = trees.flatten(setup.variables.params.get(block, {}))
    trained = {path: leaf for path, leaf in flat.items() if path in own}
    frozen = {path: leaf for path, leaf in flat.items() if path not in own}

    def run(moving: Any, frozen: Any, rest: Any) -> jax.Array:
        trained, x = moving if through else (moving, rest)
        params = {block: trees.nest({**frozen, **trained})}
        return setup.backbone.apply(params, stats, x, start=block, stop=stop)[0]

    if through:
        return flops.needed(run, (trained, x), frozen, ())
    return flops.needed(run, trained, frozen, x)
