"""Networks: a chain of NNX blocks as pure functions on plain trees.

Each block is split once into its static graph and a nested dict of arrays, and
merged again inside `apply`. A block's parameters live under the block's name, so
that every parameter is in exactly one block.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from subtune_jax.core.contracts import HEAD, Backbone, Params, Variables
from subtune_jax.core.registry import near
from subtune_jax.models.layers import Mode

Build = Callable[[nnx.Rngs], nnx.Module]


def chain(
    name: str,
    blocks: Mapping[str, Build],
    head: Callable[[nnx.Rngs, int], nnx.Module],
    load: Callable[[Variables], Variables] | None = None,
    *,
    seed: int = 0,
    input_shape: tuple[int, ...],
    normalize: tuple[tuple[float, float, float], tuple[float, float, float]] | None,
    encode: Callable[[Sequence[Mapping[str, str]]], np.ndarray] | None = None,
    lengths: tuple[int, ...] = (),
    drops: bool = False,
) -> Backbone:
    """The `Backbone` that runs `blocks` in order, then `head`.

    Args:
      name: of the file in `backbones/`.
      blocks: block name -> function that builds its module.
      head: (rngs, C) -> the module that turns features into logits.
      load: base variables of shapes only (`jax.ShapeDtypeStruct`) -> real ones; None
        for random ones by `seed`.
      seed: of random ones.
      input_shape: `(H, W, 3)`, or `(L, 2)` of texts.
      normalize: mean and standard deviation of each colour, in [0, 255]; None of texts.
      encode: of texts, as in `Backbone`.
      lengths: likewise.
      drops: whether some block drops units. If not, `apply` has no use for its key.
    """

    def init(key: jax.Array, classes: int) -> Variables:
        return _split_all({**blocks, HEAD: lambda rngs: head(rngs, classes)}, key)

    def base() -> Variables:
        if load is None:
            return _split_all(blocks, jax.random.key(seed))
        return load(shapes)

    graphs, shapes = {}, Variables({}, {})
    for block, build in blocks.items():
        graphs[block] = _add(shapes, block, _shaped(build))
    # The number of classes is in the arrays alone.
    graphs[HEAD] = _add(Variables({}, {}), HEAD, _shaped(lambda rngs: head(rngs, 2)))
    return Backbone(
        name,
        tuple(graphs),
        input_shape,
        normalize,
        init,
        base,
        functools.partial(_apply, graphs, drops),
        _alike(graphs, shapes),
        encode=encode,
        lengths=lengths,
        drops=drops,
    )


def _apply(
    graphs: Mapping[str, Any],
    drops: bool,
    params: Params,
    stats: Params,
    x: jax.Array,
    *,
    training: Collection[str] = (),
    weight: jax.Array | None = None,
    axis_name: str | None = None,
    start: str | None = None,
    stop: str | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    """`Backbone.apply` of the blocks in `graphs`."""
    order = tuple(graphs)
    first = 0 if start is None else position(order, start)
    last = len(order) if stop is None else position(order, stop)
    moved = dict(stats)
    key = key if drops else None
    for number, block in enumerate(order[first:last], first):
        # By its place in the whole network: parts drop what the whole one drops.
        own_key = None if key is None else jax.random.fold_in(key, number)
        mode = Mode(block in training, weight, axis_name, own_key)
        own = stats.get(block, {})
        module = nnx.merge(graphs[block], params.get(block, {}), own)
        x = module(x, mode)
        if mode.training and own:
            moved[block] = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    return x, moved


def position(order: tuple[str, ...], block: str) -> int:
    """Where `block` stands in `order`; ValueError with near misses if nowhere."""
    if block not in order:
        raise ValueError(f"no block named {block!r}; {near(block, order)}")
    return order.index(block)


def _alike(graphs: Mapping[str, Any], shapes: Variables) -> dict[str, str]:
    """Block -> the first one of the same graph and the same shapes; no head."""
    first_of: dict[Any, str] = {}
    alike = {}
    for block, params in shapes.params.items():
        arrays = jax.tree.leaves_with_path((params, shapes.stats.get(block, {})))
        forms = tuple((path, leaf.shape) for path, leaf in arrays)
        alike[block] = first_of.setdefault((graphs[block], forms), block)
    return alike


def _split_all(blocks: Mapping[str, Build], key: jax.Array) -> Variables:
    variables = Variables({}, {})
    for number, (block, build) in enumerate(blocks.items()):
        module = build(nnx.Rngs(params=jax.random.fold_in(key, number)))
        _add(variables, block, module)
    return variables


def _add(variables: Variables, block: str, module: nnx.Module) -> Any:
    """The graph of `module`, whose arrays are added to `variables` under `block`."""
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    variables.params[block] = nnx.to_pure_dict(params)
    if stats:
        variables.stats[block] = nnx.to_pure_dict(stats)
    return graph


def _shaped(build: Build) -> nnx.Module:
    """The module, of shapes instead of arrays."""
    return nnx.eval_shape(lambda: build(nnx.Rngs(params=0)))
