"""The activation cache: what enters each block of the trunk, the frozen base.

It is computed once and kept: every candidate, seed and fold that trains from a block on
reads the same activations. They are kept in memory up to a bound, then in files up to
another; what fits in neither is computed again from the nearest block that is kept.
"""

import functools
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.data import augment, batches, dataset
from subtune_jax.data.augment import Augment
from subtune_jax.data.batches import Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.subtuning import block_programs
from subtune_jax.subtuning.block_programs import Network, Programs
from subtune_jax.subtuning.folds import Fold

Batch = tuple[jax.Array, Any, Any]  # what enters a block, targets, weights
PREFIX = ".trunk-"  # of folders; also of those that earlier versions left
BULK = 4  # batches read at once; forward alone, of one block at a time


class Folder:
    """A folder for files, made when it is asked for, gone when this object is."""

    def __init__(self, parent: Path | None):
        """It will be below `parent`, or where temporary files go."""
        self.parent = parent

    @functools.cached_property
    def path(self) -> Path:
        """The folder."""
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.parent))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


class ActivationCache(NamedTuple):
    """The frozen base and what is known of its activations.

    Attributes:
      programs: of the network's blocks.
      base: block -> its parameters and statistics.
      examples: N of them, all of one length.
      rows: of a padded batch.
      bounds: bytes in memory, bytes on disk.
      kept: block -> `[N, ...]`, what enters it; arrays or memory-mapped files.
      folder: of the files.
    """

    programs: Programs
    base: Network
    examples: Examples
    rows: Rows
    bounds: tuple[int, int]
    kept: dict[str, np.ndarray]
    folder: Folder


def make(
    programs: Programs,
    base: Network,
    examples: Examples,
    rows: Rows,
    bounds: tuple[int, int],
    parent: Path | None = None,
) -> ActivationCache:
    """A cache that holds nothing yet; files go below `parent`."""
    folder = Folder(parent)
    return ActivationCache(programs, base, cut(examples), rows, bounds, {}, folder)


def cut(examples: Examples) -> Examples:
    """Texts no longer than the longest of them: one array holds what enters a block.

    Batches of `train` are cut each by itself; padding changes nothing but the time.
    """
    if examples.lengths is None:
        return examples
    longest, read = int(examples.lengths.max()), examples.read
    inputs = None if examples.inputs is None else examples.inputs[:, :longest]
    return Examples(examples.labels, inputs, lambda where: read(where)[:, :longest])


def clear(parent: Path) -> None:
    """Removes what killed runs left below `parent`."""
    for old in parent.glob(f"{PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)


def read(cache: ActivationCache, block: str, where: np.ndarray) -> Any:
    """What enters `block` for the examples `where` `[n]`: `[padded rows, ...]`.

    `n` is at most the rows of a batch, or of `BULK`; rows beyond `n` repeat the first.
    What is kept comes as it is, on the host.
    """
    source, x = _at_hand(cache, block, where)
    if source == block:
        return x
    return block_programs.run(cache.programs, cache.base, x, source, block)


def keep(cache: ActivationCache, block: str) -> None:
    """Computes what enters `block` for all examples, and keeps it if there is room."""
    if block in cache.kept or block == cache.programs.backbone.blocks[0]:
        return
    count, store = len(cache.examples.labels), None
    for where in portions(cache, np.arange(count)):
        x = np.asarray(read(cache, block, where))[: len(where)]
        if store is None:
            store = _room(cache, block, (count, *x.shape[1:]), x.dtype)
            if store is None:
                return
        store[where] = x
    if store is not None:
        cache.kept[block] = store


def outputs(
    cache: ActivationCache, network: Network, block: str, where: np.ndarray
) -> np.ndarray:
    """Logits `[n, C]` of examples; below `block` the `network` is the base."""
    keep(cache, block)
    logits = []
    for part in portions(cache, where):
        source, x = _at_hand(cache, block, part)
        last = block_programs.run(cache.programs, network, x, source, None)
        logits.append(np.asarray(last)[: len(part)])
    return np.concatenate(logits)


def portions(cache: ActivationCache, where: np.ndarray) -> Iterator[np.ndarray]:
    """`where` in order: `BULK` batches at once while there are as many, then single."""
    size, first = cache.rows.batch_size, 0
    while first < len(where):
        more = BULK if first + BULK * size <= len(where) else 1
        yield where[first : first + more * size]
        first += more * size


def training_batches(
    cache: ActivationCache,
    block: str,
    fold: Fold,
    steps: range,
    classes: int,
    options: Augment,
) -> Iterator[Batch]:
    """The training batches of a fold as they enter `block`, those of `train`.

    Args:
      cache: of the trunk.
      block: what lies below it is the base.
      fold: whose training examples they are, in the order of its seed.
      steps: of which steps.
      classes: of the targets.
      options: of augmentation; augmented images are never kept.
    """
    if options != augment.NONE:
        yield from _augmented(cache, block, fold, steps, classes, options)
        return
    rows, labels = cache.rows, cache.examples.labels
    size, count = rows.batch_size, len(fold.train)
    weight = (np.arange(rows.padded) < size).astype(np.float32)
    first, last = steps.start * size, steps.stop * size
    places = batches.shuffled(fold.seed, count, first, last) if steps else np.arange(0)
    for where in fold.train[places].reshape(-1, size):
        padded = np.pad(where, (0, rows.padded - size))
        targets = np.asarray(dataset.target(labels[padded], classes))
        yield read(cache, block, where), targets, weight


def _augmented(
    cache: ActivationCache,
    block: str,
    fold: Fold,
    steps: range,
    classes: int,
    options: Augment,
) -> Iterator[Batch]:
    programs, examples = cache.programs, cache.examples

    def augmented(piece: Any) -> tuple[jax.Array, jax.Array]:
        return dataset.labelled({}, piece, classes, options)

    own = Examples(
        examples.labels[fold.train],
        None,
        lambda where: examples.read(fold.train[where]),
    )
    feed = batches.training(own, cache.rows, fold.seed, options)
    for piece in feed.pieces(steps.start, steps.stop):
        placed = block_programs.spread(programs, dict(piece))
        x, targets = block_programs.call(programs, ("augmented",), augmented, placed)
        x = block_programs.run(programs, cache.base, x, None, block)
        yield x, targets, placed["weight"]


def _at_hand(
    cache: ActivationCache, block: str, where: np.ndarray
) -> tuple[str | None, np.ndarray]:
    """The nearest block at or below `block` whose input is kept, and that, padded.

    Where there is none: None, and the examples themselves.
    """
    many = 1 if len(where) <= cache.rows.batch_size else BULK
    padded = np.full(many * cache.rows.padded, where[0] if len(where) else 0)
    padded[: len(where)] = where
    order = cache.programs.backbone.blocks
    below = reversed(order[: order.index(block) + 1])
    source = next((name for name in below if name in cache.kept), None)
    if source is None:
        return None, cache.examples.read(padded)
    return source, cache.kept[source][padded]


def _room(
    cache: ActivationCache, block: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray | None:
    """An empty array in memory or on disk, or None where neither has room."""
    size = int(np.prod(shape)) * dtype.itemsize
    held = {True: 0, False: 0}  # on disk, in memory
    for array in cache.kept.values():
        held[isinstance(array, np.memmap)] += array.nbytes
    memory, disk = cache.bounds
    if held[False] + size <= memory:
        return np.empty(shape, dtype)
    if held[True] + size <= disk:
        file = cache.folder.path / block
        return np.memmap(file, dtype, "w+", shape=shape)
    return None
