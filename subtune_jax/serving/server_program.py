"""The program of a server: the trunk once, then tiles of rows, one task each.

At each fork of the trunk a loop runs over the tiles of the tasks that leave there. It
takes the tile's rows of the trunk and the task's rows of the stacks, and runs the rest
of the network. Which tiles there are is data: the loop counts up to an argument, so
that no task runs that was not asked.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from subtune_jax.core import trees
from subtune_jax.core.contracts import Backbone, Variables
from subtune_jax.data import dataset
from subtune_jax.serving import stacks
from subtune_jax.serving.layouts import Server
from subtune_jax.serving.stacks import BASE, Flat


class Tiles(NamedTuple):
    """Which rows go to which task. There is room for T tiles; one fork's lie together.

    Attributes:
      rows: int32 `[T, tile]`, rows of the batch.
      variants: int32 `[T, S]`, the row of each of the S stacks.
      stops: int32 `[forks]`, where the tiles of each fork end.
      features: bool, is the plain base asked as well?
    """

    rows: np.ndarray
    variants: np.ndarray
    stops: np.ndarray
    features: np.ndarray


def segment(
    backbone: Backbone, start: str | None, stop: str | None
) -> Callable[[Variables, jax.Array], jax.Array]:
    """Blocks `start` to `stop` of variables; on images where there is no `start`."""

    def run(variables: Variables, x: jax.Array) -> jax.Array:
        x = dataset.normalize(backbone, x) if start is None else x
        return backbone.apply(*variables, x, start=start, stop=stop)[0]

    return run


def variables(leaves: Flat) -> Variables:
    """The tree of leaves by path."""
    return Variables(**{"stats": {}, **trees.nest(leaves)})


def make(
    backbone: Backbone, forks: tuple[str, ...], classes: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The compiled `(base, stacks, images, tiles) -> (logits, features)`.

    `base` and `stacks` are leaves by path, images `[B, H, W, 3]`, or tokens
    `[B, L, 2]`. Logits are `[T, tile, classes]`, zero where no tile was run; features
    are what enters the head `[B, D]`, zero where the base was not asked.
    """
    starts = (None, *forks[:-1])
    trunk = [segment(backbone, *ends) for ends in zip(starts, forks, strict=True)]
    rest = [segment(backbone, fork, None) for fork in forks]

    def answer(base: Flat, stacks: Flat, images: jax.Array, tiles: Tiles):
        logits = jnp.zeros((*tiles.rows.shape, classes))
        x, begin = images, jnp.int32(0)
        for number, end in enumerate(tiles.stops):
            needed = tiles.features | (begin < tiles.stops[-1])
            x = _where(needed, trunk[number], variables(base), x)
            logits = lax.fori_loop(
                begin, end, _tile(rest[number], base, stacks, x, tiles), logits
            )
            begin = end
        return logits, x

    return jax.jit(answer)


def assign(
    server: Server, asked: Mapping[str, np.ndarray], size: int
) -> tuple[Tiles, dict[str, slice]]:
    """The tiles that answer `asked`, name -> rows of a batch of `size` rows.

    Returns:
      The tiles, and where those of each task lie.
    """
    forks, tile = server.layout.forks, server.layout.sizes.tile
    capacity = server.layout.slots * (size // tile)
    tiles = Tiles(
        np.zeros((capacity, tile), np.int32),
        np.zeros((capacity, len(server.stacks.owners)), np.int32),
        np.zeros(len(forks), np.int32),
        np.array(len(asked.get(BASE, ())) > 0),
    )

    def fork(name: str) -> int:
        return forks.index(server.tasks[name].fork)

    places, done = {}, 0
    for name in sorted(asked.keys() - {BASE}, key=fork):
        rows = asked[name]
        places[name] = where = slice(done, done - (-len(rows) // tile))
        tiles.rows[where].reshape(-1)[: len(rows)] = rows
        tiles.variants[where] = stacks.rows(server.stacks, name)
        done = where.stop
        tiles.stops[fork(name) :] = done
    return tiles, places


def _where(
    needed: jax.Array,
    function: Callable[[Variables, jax.Array], jax.Array],
    variables: Variables,
    x: jax.Array,
) -> jax.Array:
    """`function(variables, x)` where it is `needed`, else zeros at no cost."""
    shape = jax.eval_shape(function, variables, x)

    def nothing(variables: Variables, x: jax.Array) -> jax.Array:
        del variables, x
        return jnp.zeros(shape.shape, shape.dtype)

    return lax.cond(needed, function, nothing, variables, x)


def _tile(
    rest: Callable[[Variables, jax.Array], jax.Array],
    base: Flat,
    stacks: Flat,
    x: jax.Array,
    tiles: Tiles,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(i, logits) -> the logits with those of tile i, by `rest` of what is at `x`."""

    def body(i: jax.Array, logits: jax.Array) -> jax.Array:
        own = {
            path: lax.dynamic_index_in_dim(stack, tiles.variants[i, n], keepdims=False)
            for n, (path, stack) in enumerate(stacks.items())
        }
        y = rest(variables({**base, **own}), x[tiles.rows[i]])
        return lax.dynamic_update_index_in_dim(logits, y, i, 0)

    return body
