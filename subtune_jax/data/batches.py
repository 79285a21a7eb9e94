"""Batches: which examples at which step, and how they reach the step.

A *piece* is what changes from step to step: a dict of arrays with one row an example
of the padded batch, split over the devices. A set that is small enough lives on the
devices, and a piece holds only indices into it; a larger one streams through grain,
and a piece holds the images. Rows that pad the batch have weight 0. Texts are always
sent with the piece: each batch is cut to the least of a few lengths that holds its
longest text, so that few programs are compiled.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import grain.python as grain
import numpy as np

from subtune_jax.data import augment, dataset
from subtune_jax.data.augment import Augment
from subtune_jax.data.dataset import Examples

Piece = Mapping[str, np.ndarray]


class Rows(NamedTuple):
    """The rows of a padded batch, and which of them this process feeds."""

    batch_size: int
    padded: int
    first: int
    last: int


class Feed(NamedTuple):
    """A source of training batches.

    Attributes:
      resident: arrays that live on every device, `{}` when streaming: `inputs`
        `[N, ...]` and `labels` `[N]` or `[N, H, W]`.
      pieces: (first step, last step) -> the pieces of those steps, in order; each
        with `weight` [rows], either `index` or `inputs` and `labels`, the numbers
        `drawn` for augmentation, and for mixing all but the weight of a partner.
    """

    resident: dict[str, np.ndarray]
    pieces: Callable[[int, int], Iterator[Piece]]


def rows(batch_size: int, multiple: int, process: int = 0, processes: int = 1) -> Rows:
    """A batch of `batch_size` padded to a multiple, shared evenly by processes.

    >>> rows(30, 8)
    Rows(batch_size=30, padded=32, first=0, last=32)
    """
    padded = -(-batch_size // multiple) * multiple
    share = padded // processes
    return Rows(batch_size, padded, process * share, (process + 1) * share)


def training(
    examples: Examples,
    rows: Rows,
    seed: int,
    augmentation: Augment = augment.NONE,
    *,
    resident: bool = True,
) -> Feed:
    """Shuffled batches, each epoch in an order of its own; the same when streaming.

    Args:
      examples: that are trained on.
      rows: of a padded batch.
      seed: of the order.
      augmentation: what is drawn for each batch.
      resident: whether examples in memory live on the devices; if not, each piece
        holds its own.

    Raises:
      ValueError: a batch is larger than the data.
    """
    count = len(examples.labels)
    if rows.batch_size > count:
        what = f"batch_size={rows.batch_size}"
        raise ValueError(f"{what}; there are {count} training examples")
    # Texts do not stay: their length changes.
    stays = resident and examples.inputs is not None and examples.lengths is None
    sent = functools.partial(_indices if stays else _rows, examples)
    mine = slice(rows.first, rows.last)
    weight = (np.arange(rows.padded) < rows.batch_size).astype(np.float32)

    def piece(step: int) -> Piece:
        where = _batch(seed, count, rows, int(step))
        arrays: dict[str, Any] = {"weight": weight[mine]}
        if not augment.active(augmentation):
            real = where[: rows.batch_size]
            return {**arrays, **_cut(examples, sent(where[mine]), real)}
        drawn = augment.draw(augmentation, seed, int(step), rows.batch_size)
        drawn = np.pad(drawn, ((0, rows.padded - rows.batch_size), (0, 0)))
        arrays["drawn"] = drawn[mine]
        if not augment.mixes(augmentation):
            return arrays | sent(where[mine])
        other = np.arange(rows.padded)  # row i with row i + 1, around the real rows
        other[: rows.batch_size] = np.roll(other[: rows.batch_size], -1)
        arrays["partner_drawn"] = drawn[other][mine]
        return arrays | sent(where[mine], where[other][mine])

    at_hand = examples.inputs is not None and (stays or not resident)
    if not at_hand:
        return Feed({}, lambda first, last: _ahead(piece, first, last))
    stored: Any = {"inputs": examples.inputs, "labels": examples.labels}
    pieces = lambda first, last: map(piece, range(first, last))  # noqa: E731
    return Feed(stored if stays else {}, pieces)


def _indices(
    examples: Examples, where: np.ndarray, partners: np.ndarray | None = None
) -> dict[str, Any]:
    """What a piece says of examples that stay, and of those they are mixed with."""
    del examples
    return {"index": where} | ({} if partners is None else {"partner": partners})


def _rows(
    examples: Examples, where: np.ndarray, partners: np.ndarray | None = None
) -> dict[str, Any]:
    """The same of examples that are sent."""
    if partners is None and examples.inputs is not None:
        return {"inputs": examples.inputs[where], "labels": examples.labels[where]}
    both = {"": where} if partners is None else {"": where, "partner_": partners}
    # Nearly every image is in the batch and a partner too: each is read once.
    few, back = np.unique(np.concatenate([*both.values()]), return_inverse=True)
    inputs, labels, arrays = examples.read(few), examples.labels[few], {}
    for name, place in zip(both, np.split(back, len(both)), strict=True):
        arrays |= {f"{name}inputs": inputs[place], f"{name}labels": labels[place]}
    return arrays


def sequential(examples: Examples, rows: Rows) -> Iterator[Piece]:
    """Every example once, in order: pieces of `inputs` and `weight`.

    Inputs are sent with the piece, not looked up on the device, so that one program
    serves splits of any size. The last batch is padded with weight 0.
    """
    count = len(examples.labels)

    def piece(step: int) -> Piece:
        first = int(step) * rows.batch_size
        batch = np.arange(first, min(first + rows.batch_size, count))
        where = np.zeros(rows.padded, int)
        where[: len(batch)] = batch
        real = np.arange(rows.padded) < len(batch)
        mine = slice(rows.first, rows.last)
        inputs = examples.read(where[mine])
        arrays = {"inputs": inputs, "weight": real[mine].astype(np.float32)}
        return _cut(examples, arrays, batch)

    return _ahead(piece, 0, -(-count // rows.batch_size))


def _cut(examples: Examples, piece: Piece, where: np.ndarray) -> Piece:
    """The piece with its inputs as long as the longest of the whole batch `where`."""
    longest = dataset.length(examples, where)
    if longest is None:
        return piece
    return {**piece, "inputs": piece["inputs"][:, :longest]}


def shuffled(seed: int, count: int, first: int, last: int) -> np.ndarray:
    """Places `first` to `last` of the endless stream of shuffled epochs, int32.

    Every epoch is a permutation of [0, count) drawn from (seed, epoch).
    """
    epochs = range(first // count, (last - 1) // count + 1)
    orders = [_epoch(seed, count, epoch) for epoch in epochs]
    skip = epochs[0] * count
    return np.concatenate(orders)[first - skip : last - skip].astype(np.int32)


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, count: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def _batch(seed: int, count: int, rows: Rows, step: int) -> np.ndarray:
    """Indices of a padded batch."""
    size = rows.batch_size
    where = shuffled(seed, count, step * size, (step + 1) * size)
    return np.concatenate([where, np.zeros(rows.padded - size, np.int32)])


def _ahead(piece: Callable[[int], Piece], first: int, last: int) -> Iterator[Piece]:
    """Pieces `first` to `last`, prepared ahead of need by threads, in order."""
    # Each thread prepares a piece of its own: with more threads than cores the first
    # piece would be ready when the last is.
    threads = min(8, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    steps = grain.MapDataset.range(first, last).map(piece)
    return iter(steps.to_iter_dataset(options))
