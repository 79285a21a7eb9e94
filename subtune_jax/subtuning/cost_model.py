"""Prices: what a candidate trains and what a step of it costs, before it is trained.

Floating-point operations are those that the network needs (see `costs`), from the
earliest trained block on: what lies below is read from the trunk.
"""

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
from subtune_jax.training.setup import Setup

Set = tuple[str, ...]


def pricer(
    made: Setup, leaves: Callable[[Set], Sequence[str]]
) -> Callable[[Set], dict[str, float]]:
    """A function: set -> `parameters` of the base that it trains, and step `flops`.

    Args:
      made: the setup.
      leaves: set -> paths of the leaves that it trains.
    """
    flat = trees.flatten(made.base.params)
    shapes = _inputs(made)
    counted: dict[Any, Operations] = {}

    def block_needs(block: str, own: tuple[str, ...], through: bool) -> Operations:
        same = made.backbone.alike.get(block, block)
        key = (same, shapes[block].shape, own, through)
        if key not in counted:
            counted[key] = _needs(made, block, own, shapes[block], through)
        return counted[key]

    def price(one: Set) -> dict[str, float]:
        paths = list(leaves(one))
        by_block: dict[str, list[str]] = {HEAD: ["kernel", "bias"]}
        for path in paths:
            block, leaf = path.split("/", 1)
            by_block.setdefault(block, []).append(leaf)
        order = made.backbone.blocks
        first = min(order.index(block) for block in by_block)
        flops = 0.0
        for block in order[first:]:
            own = tuple(sorted(by_block.get(block, [])))
            needs = block_needs(block, own, block != order[first])
            flops += needs.forward + needs.backward
        return {"parameters": sum(int(flat[p].size) for p in paths), "flops": flops}

    return price


def _inputs(made: Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """What enters each block, for one batch; texts are as long as in trials."""
    params, stats = made.variables
    one = trials.images(made).read(np.zeros(1, int))
    shape = (made.settings["batch_size"], *one.shape[1:])
    pixels = jax.ShapeDtypeStruct(shape, one.dtype)
    x: Any = jax.eval_shape(
        lambda pixels: dataset.enter(made.backbone, pixels, jnp.float32), pixels
    )
    found, order = {}, (*made.backbone.blocks, None)
    for block, stop in zip(order, order[1:], strict=False):
        found[block] = x
        x = jax.eval_shape(
            lambda params, stats, x, b=block, s=stop: made.backbone.apply(
                params, stats, x, start=b, stop=s
            )[0],
            params,
            stats,
            x,
        )
    return found


def _needs(
    made: Setup, block: str, own: tuple[str, ...], x: Any, through: bool
) -> Operations:
    """Forward, and backward to the leaves `own` and, if `through`, to the input."""
    order = (*made.backbone.blocks, None)
    stop, stats = order[order.index(block) + 1], made.variables.stats
    flat = trees.flatten(made.variables.params.get(block, {}))
    trained = {path: leaf for path, leaf in flat.items() if path in own}
    frozen = {path: leaf for path, leaf in flat.items() if path not in own}

    def run(given: Any, frozen: Any, rest: Any) -> jax.Array:
        trained, x = (given[0], given[1]) if through else (given, rest)
        params = {block: trees.nest({**frozen, **trained})}
        return made.backbone.apply(params, stats, x, start=block, stop=stop)[0]

    if through:
        return flops.needed(run, (trained, x), frozen, ())
    return flops.needed(run, trained, frozen, x)
