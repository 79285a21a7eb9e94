"""The activation cache: what enters a block of the trunk, the frozen base.

It is computed once and kept: every candidate, seed and fold that trains from a block on
reads the same activations. They are kept in memory up to a bound, then in files up to
another; what fits in neither is computed again from the nearest block that is kept.
"""

import functools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import Backbone, Variables
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.training import prediction

PREFIX = ".trunk-"  # of folders; also of those that earlier versions left


class Folder:
    """A folder for files, made when it is asked for, gone when this object is."""

    def __init__(self, parent: Path | None):
        """It will be below `parent`, or where temporary files go."""
        self.parent = parent

    @functools.cached_property
    def path(self) -> Path:
        """The folder."""
        if self.parent is not None:
            self.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.parent))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


class ActivationCache(NamedTuple):
    """What is known of the activations of a frozen base.

    Attributes:
      backbone: the network.
      base: its variables.
      dtype: of the computation.
      forward: (examples, start, stop) -> what enters block `stop` `[n, ...]`, batch by
        batch in order, of examples that enter block `start`; None: as they are.
      bounds: bytes in memory, bytes on disk.
      sets: the examples of which something is kept.
      kept: (place in `sets`, block) -> `[N, ...]`, arrays or memory-mapped files.
      folder: of the files.
    """

    backbone: Backbone
    base: Variables
    dtype: Any
    forward: Callable[[Examples, str | None, str], Iterator[np.ndarray]]
    bounds: tuple[int, int]
    sets: list[Examples]
    kept: dict[tuple[int, str], np.ndarray]
    folder: Folder


def make(
    backbone: Backbone,
    base: Variables,
    dtype: Any,
    forward: Callable[[Examples, str | None, str], Iterator[np.ndarray]],
    bounds: tuple[int, int],
    parent: Path | None = None,
) -> ActivationCache:
    """A cache that holds nothing yet; files go below `parent`."""
    folder = Folder(parent)
    return ActivationCache(backbone, base, dtype, forward, bounds, [], {}, folder)


def clear(parent: Path) -> None:
    """Removes what killed runs left below `parent`."""
    for old in parent.glob(f"{PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)


def forget(cache: ActivationCache) -> None:
    """Makes room: nothing is kept any more."""
    for array in cache.kept.values():
        if isinstance(array, np.memmap):  # who reads it still can; the name is free
            Path(str(array.filename)).unlink()
    cache.kept.clear()
    cache.sets.clear()


def entering(
    cache: ActivationCache, examples: Examples, block: str
) -> tuple[str | None, Examples]:
    """A block at or below `block`, the nearest that is kept, and what enters it.

    What enters `block` is computed and kept first, for all examples that these are a
    part of, if there is room. Where nothing is kept: None, and the examples themselves.
    """
    order = cache.backbone.blocks
    whole = examples if examples.whole is None else examples.whole
    number = next((i for i, old in enumerate(cache.sets) if old is whole), None)
    if number is None:
        number = len(cache.sets)
        cache.sets.append(whole)
    if block != order[0] and (number, block) not in cache.kept:
        _keep(cache, number, block)
    source = _nearest(cache, number, block)
    if source is None:
        return None, examples
    inside, places = _kept(cache, number, source), examples.places
    return source, inside if places is None else dataset.part(inside, places)


def entered(cache: ActivationCache, examples: Examples, block: str) -> Examples:
    """The examples as they enter `block`; what has no room is computed and not kept."""
    source, inside = entering(cache, examples, block)
    if source == block:
        return inside
    parts = list(cache.forward(inside, source, block))
    outputs = prediction.joined(parts, inside)
    lengths = inside.lengths if outputs.ndim == 3 else None
    return dataset.resident(outputs, inside.labels)._replace(lengths=lengths)


def _nearest(cache: ActivationCache, number: int, block: str) -> str | None:
    order = cache.backbone.blocks
    below = reversed(order[: order.index(block) + 1])
    return next((name for name in below if (number, name) in cache.kept), None)


def _kept(cache: ActivationCache, number: int, block: str) -> Examples:
    """Examples of a set as they enter a block."""
    array, whole = cache.kept[number, block], cache.sets[number]
    small = not isinstance(array, np.memmap) and array.nbytes <= dataset.RESIDENT_BYTES
    lengths = whole.lengths if array.ndim == 3 else None
    inputs = array if small else None
    return Examples(whole.labels, inputs, lambda where: array[where], lengths)


def _keep(cache: ActivationCache, number: int, block: str) -> None:
    """Computes what enters `block` for all of a set, if there is room to keep it."""
    examples, first = cache.sets[number], 0
    count, source = len(examples.labels), _nearest(cache, number, block)
    before = examples if source is None else _kept(cache, number, source)
    shape = jax.eval_shape(
        functools.partial(_output, cache, source, block),
        *cache.base,
        dataset.cut(before).read(np.zeros(1, int)),
    )
    store = _room(cache, number, block, (count, *shape.shape[1:]), shape.dtype)
    if store is None:
        return
    for x in cache.forward(before, source, block):
        rows = store[first : first + len(x)]
        rows[:, : x.shape[1]] = x  # of texts, a batch may be shorter than the longest
        first += len(x)
    cache.kept[number, block] = store


def _output(
    cache: ActivationCache,
    source: str | None,
    block: str,
    params: Any,
    stats: Any,
    x: jax.Array,
) -> jax.Array:
    x = dataset.enter(cache.backbone, x, cache.dtype) if source is None else x
    params = jax.tree.map(lambda leaf: leaf.astype(cache.dtype), params)
    return cache.backbone.apply(params, stats, x, start=source, stop=block)[0]


def _room(
    cache: ActivationCache,
    number: int,
    block: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray | None:
    """An array of zeros in memory or on disk, or None where neither has room."""
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    held = {True: 0, False: 0}  # on disk, in memory
    for array in cache.kept.values():
        held[isinstance(array, np.memmap)] += array.nbytes
    memory, disk = cache.bounds
    if held[False] + size <= memory:
        return np.zeros(shape, dtype)
    if held[True] + size <= disk:
        file = cache.folder.path / f"{number}-{block}"
        return np.memmap(file, dtype, "w+", shape=shape)
    return None
