"""The trunk: what enters each block of the frozen base, computed once and kept.

Every candidate, seed and fold that trains from a block on reads the same activations.
They are kept in memory up to a bound, then in files up to another; what fits in
neither is computed again from the nearest block that is kept.
"""

import functools
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from subtune_jax.data.batches import Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.subtuning import block_programs
from subtune_jax.subtuning.block_programs import Own, Pieces

PREFIX = ".trunk-"
BULK = 4  # batches read at once; forward alone, of one block at a time


class Folder:
    """A folder for files, made when it is asked for, gone when this object is."""

    def __init__(self, parent: Path | None):
        """It will be below `parent`, or where temporary files go."""
        self.parent = parent

    @functools.cached_property
    def path(self) -> Path:
        """The folder."""
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.parent))
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return made


class Trunk(NamedTuple):
    """The frozen base and what is known of its activations.

    Attributes:
      pieces: the network.
      base: block -> its parameters and statistics.
      images: N examples, all of one length.
      rows: of a padded batch.
      bounds: bytes in memory, bytes on disk.
      kept: block -> `[N, ...]`, what enters it; arrays or memory-mapped files.
      folder: of the files.
    """

    pieces: Pieces
    base: dict[str, Own]
    images: Examples
    rows: Rows
    bounds: tuple[int, int]
    kept: dict[str, np.ndarray]
    folder: Folder


def make(
    pieces: Pieces,
    base: dict[str, Own],
    images: Examples,
    rows: Rows,
    bounds: tuple[int, int],
    parent: Path | None = None,
) -> Trunk:
    """A trunk that has computed nothing yet; files go below `parent`."""
    return Trunk(pieces, base, cut(images), rows, bounds, {}, Folder(parent))


def cut(images: Examples) -> Examples:
    """Texts no longer than the longest of them: one array holds what enters a block.

    Batches of `train` are cut each by itself; padding changes nothing but the time.
    """
    if images.lengths is None:
        return images
    longest = int(images.lengths.max())
    kept = None if images.inputs is None else images.inputs[:, :longest]
    return Examples(images.labels, kept, lambda where: images.read(where)[:, :longest])


def clear(parent: Path) -> None:
    """Removes what killed runs left below `parent`."""
    for old in parent.glob(f"{PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)


def read(trunk: Trunk, block: str, where: np.ndarray) -> jax.Array:
    """What enters `block` for the examples `where` `[n]`: `[padded rows, ...]`.

    `n` is at most the rows of a batch, or of `BULK`; rows beyond `n` repeat the first.
    """
    batches = 1 if len(where) <= trunk.rows.batch_size else BULK
    padded = np.full(batches * trunk.rows.padded, where[0] if len(where) else 0)
    padded[: len(where)] = where
    source = _source(trunk, block)
    if source == trunk.pieces.backbone.blocks[0]:
        images = block_programs.spread(trunk.pieces, trunk.images.read(padded))
        x = block_programs.enter(trunk.pieces, images)
    else:
        x = block_programs.spread(trunk.pieces, trunk.kept[source][padded])
    return run(trunk.pieces, trunk.base, x, source, block)


def keep(trunk: Trunk, block: str) -> None:
    """Computes what enters `block` for all examples, and keeps it if there is room."""
    if block in trunk.kept or block == trunk.pieces.backbone.blocks[0]:
        return
    count, store = len(trunk.images.labels), None
    for where in portions(trunk, np.arange(count)):
        x = np.asarray(read(trunk, block, where))[: len(where)]
        if store is None:
            store = _room(trunk, block, (count, *x.shape[1:]), x.dtype)
            if store is None:
                return
        store[where] = x
    if store is not None:
        trunk.kept[block] = store


def portions(trunk: Trunk, where: np.ndarray) -> Iterator[np.ndarray]:
    """`where` in order: `BULK` batches at once while there are as many, then single."""
    size, first = trunk.rows.batch_size, 0
    while first < len(where):
        more = BULK if first + BULK * size <= len(where) else 1
        yield where[first : first + more * size]
        first += more * size


def run(
    pieces: Pieces, mine: dict[str, Own], x: jax.Array, start: str, stop: str | None
) -> jax.Array:
    """Blocks `start` (included) to `stop` (excluded; None: all) in evaluation mode."""
    order = pieces.backbone.blocks
    last = len(order) if stop is None else order.index(stop)
    for block in order[order.index(start) : last]:
        x = block_programs.forward(pieces, block, mine[block], x)
    return x


def _source(trunk: Trunk, block: str) -> str:
    """The nearest block at or below `block` whose input is at hand."""
    order = trunk.pieces.backbone.blocks
    below = reversed(order[: order.index(block) + 1])
    return next((name for name in below if name in trunk.kept), order[0])


def _room(
    trunk: Trunk, block: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray | None:
    """An empty array in memory or on disk, or None where neither has room."""
    size = int(np.prod(shape)) * dtype.itemsize
    held = {True: 0, False: 0}  # on disk, in memory
    for array in trunk.kept.values():
        held[isinstance(array, np.memmap)] += array.nbytes
    memory, disk = trunk.bounds
    if held[False] + size <= memory:
        return np.empty(shape, dtype)
    if held[True] + size <= disk:
        file = trunk.folder.path / block
        return np.memmap(file, dtype, "w+", shape=shape)
    return None
