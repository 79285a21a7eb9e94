"""Stacks: the variants of each leaf that some task changes, row 0 the base's.

A task is a row number for each stack: its own row where it changes the leaf, else 0.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from subtune_jax import delta
from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD, Variables
from subtune_jax.delta.leaves import bits
from subtune_jax.delta.store import refuse_mismatch

BASE = "base"
Flat = dict[str, Any]  # path, `params/...` or `stats/...`, -> array


class Stacks(NamedTuple):
    """The variants of each leaf, and the tasks that own them.

    Attributes:
      leaves: path -> `[rows, ...]`, on the device. Heads are padded to one number of
        classes; their row 0 is zero, as the base has none.
      owners: path -> the task of each row, None for a free one; the first is "base".
    """

    leaves: Flat
    owners: dict[str, tuple[str | None, ...]]


def block(path: str) -> str:
    """The block that owns a leaf.

    >>> block("params/block01/norm/scale")
    'block01'
    """
    return path.split("/")[1]


def classes(leaves: Mapping[str, Any]) -> int:
    """C of the head among `leaves`; 0 if there is none."""
    return next((x.shape[-1] for path, x in leaves.items() if block(path) == HEAD), 0)


def changed(
    init: Callable[..., Variables], base: Flat, name: str, tuned: Variables
) -> Flat:
    """The leaves of `tuned` whose bits differ from the base's, and its head.

    Args:
      init: of the backbone.
      base: path -> leaf, without a head.
      name: of the task.
      tuned: base + delta.

    Raises:
      ValueError: the name is "base", or `tuned` has no head or not the base's leaves.
    """
    if name == BASE:
        raise ValueError(f"a task named {BASE!r}; that name is the plain base's")
    own = delta.flatten(tuned)
    width = classes(own)
    if not width:
        raise ValueError(
            f"task {name!r} has no head; there are {len(own)} other leaves"
        )
    expected = {**base, **_head(init, width)}
    try:
        refuse_mismatch(expected, own)
    except ValueError as error:
        raise ValueError(f"task {name!r}: {error}") from error
    if more := sorted(own.keys() - expected.keys()):
        raise ValueError(f"task {name!r}: leaf {more[0]!r} is not in the base")
    return {
        path: leaf
        for path, leaf in own.items()
        if path not in base or (bits(leaf) != bits(np.asarray(base[path]))).any()
    }


def build(base: Flat, tasks: Mapping[str, Flat], spare: int, width: int) -> Stacks:
    """Stacks of all that `tasks` change, each with `spare` free rows.

    Args:
      base: path -> leaf.
      tasks: name -> what `changed` returned.
      spare: free rows.
      width: classes that heads are padded to.
    """
    leaves, owners = {}, {}
    for path in sorted(set().union(*tasks.values())):
        own = {name: flat[path] for name, flat in tasks.items() if path in flat}
        owners[path] = (BASE, *own, *[None] * spare)
        first = next(iter(own.values()))
        shape = first.shape if path in base else (*first.shape[:-1], width)
        leaves[path] = np.zeros((len(owners[path]), *shape), first.dtype)
        for row, leaf in enumerate(own.values(), 1):
            leaves[path][row] = _pad(leaf, shape)
    # Row 0 by what `place` calls, so that the first task added compiles nothing.
    return _write(Stacks(jax.device_put(leaves), owners), base, BASE, {})


def fit(stacks: Stacks, leaves: Flat) -> bool:
    """Is each of `leaves` stacked, with a free row that is wide enough?"""
    return all(
        None in stacks.owners.get(path, ())
        and leaf.shape[-1:] <= stacks.leaves[path].shape[1:][-1:]
        for path, leaf in leaves.items()
    )


def place(stacks: Stacks, base: Flat, name: str, leaves: Flat) -> Stacks:
    """The stacks with `leaves`, which `fit`, in rows of the task `name`."""
    owners = dict(stacks.owners)
    for path in leaves:
        row = owners[path].index(None)
        owners[path] = (*owners[path][:row], name, *owners[path][row + 1 :])
    return _write(stacks._replace(owners=owners), base, name, leaves)


def drop(stacks: Stacks, name: str) -> Stacks:
    """The stacks with the rows of the task `name` free."""
    owners = {
        path: tuple(None if owner == name else owner for owner in rows)
        for path, rows in stacks.owners.items()
    }
    return stacks._replace(owners=owners)


def rows(stacks: Stacks, name: str) -> np.ndarray:
    """The row of the task `name` in each stack, int32, in the order of `owners`."""
    numbers = [own.index(name) if name in own else 0 for own in stacks.owners.values()]
    return np.array(numbers, np.int32)


def held(stacks: Stacks, name: str, width: int) -> Flat:
    """The leaves of the task `name`, which has `width` classes, as NumPy arrays."""
    padded = {
        path: np.asarray(stacks.leaves[path])[own.index(name)]
        for path, own in stacks.owners.items()
        if name in own
    }
    return {
        path: leaf[..., :width] if block(path) == HEAD else leaf
        for path, leaf in padded.items()
    }


def _write(stacks: Stacks, base: Flat, name: str, leaves: Flat) -> Stacks:
    """Writes the rows of `name`: its `leaves`, and the base's where it has none."""
    new = {}
    for path, stack in stacks.leaves.items():
        leaf = leaves[path] if path in leaves else base.get(path)
        empty = np.zeros(stack.shape[1:], stack.dtype)
        new[path] = empty if leaf is None else _pad(np.asarray(leaf), empty.shape)
    return stacks._replace(leaves=_replace(stacks.leaves, new, rows(stacks, name)))


@jax.jit
def _replace(leaves: Flat, new: Flat, rows: jax.Array) -> Flat:
    return {
        path: lax.dynamic_update_index_in_dim(stack, new[path], rows[number], 0)
        for number, (path, stack) in enumerate(leaves.items())
    }


def _pad(leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros after what is there, on every axis."""
    missing = [whole - own for whole, own in zip(shape, leaf.shape, strict=True)]
    return np.pad(leaf, [(0, count) for count in missing])


@functools.lru_cache
def _head(init: Callable[..., Variables], width: int) -> Flat:
    shapes = jax.eval_shape(lambda key: init(key, width), jax.random.key(0))
    flat = trees.flatten(shapes._asdict())
    return {path: leaf for path, leaf in flat.items() if block(path) == HEAD}
