"""Layouts: what a program is compiled for, and where its tasks leave the trunk."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax

from subtune_jax.core.contracts import HEAD, Backbone
from subtune_jax.serving import stacks
from subtune_jax.serving.stacks import Flat, Stacks


class Sizes(NamedTuple):
    """Numbers that the user sets; see `multitask.join`."""

    spare: int
    classes: int
    tile: int
    batch: int


class Layout(NamedTuple):
    """What a program is compiled for.

    Attributes:
      backbone: the network.
      forks: blocks at which tasks leave the trunk, in order; the last is `"head"`.
      slots: tasks that there is room for.
      sizes: as given to `join`; `classes` at least the widest head's.
      answer: the program, see `program.make`.
    """

    backbone: Backbone
    forks: tuple[str, ...]
    slots: int
    sizes: Sizes
    answer: Callable[..., tuple[jax.Array, jax.Array]]


class Branch(NamedTuple):
    """A task's way through the network.

    Attributes:
      fork: the block at which it leaves the trunk: it runs its own blocks from there.
      classes: C of its head.
    """

    fork: str
    classes: int


class Server(NamedTuple):
    """A base and its tasks, ready to answer; no function changes one in place.

    Attributes:
      layout: servers of one layout share their programs.
      base: path, `params/...` or `stats/...`, -> leaf of the base, on the device.
      stacks: the leaves that tasks change.
      tasks: by name.
    """

    layout: Layout
    base: Flat
    stacks: Stacks
    tasks: dict[str, Branch]


def forks(backbone: Backbone, tasks: Iterable[Flat]) -> tuple[str, ...]:
    """The first block that each task changes, in order, and the head."""
    first = {HEAD, *(_first(backbone, leaves) for leaves in tasks)}
    return tuple(block for block in backbone.blocks if block in first)


def branch(backbone: Backbone, forks: tuple[str, ...], leaves: Flat) -> Branch:
    """Of a task that changes `leaves`: its fork is the last one above all of them.

    >>> from subtune_jax.backbones import mlp
    >>> bias = jax.numpy.zeros(5)
    >>> changed = {"params/hidden02/norm/bias": bias, "params/head/bias": bias}
    >>> branch(mlp.make(**mlp.TINY), ("hidden01", "head"), changed)
    Branch(fork='hidden01', classes=5)
    """
    order = backbone.blocks.index
    first = order(_first(backbone, leaves))
    early = [fork for fork in forks if order(fork) <= first]
    return Branch(early[-1], stacks.classes(leaves))


def _first(backbone: Backbone, leaves: Iterable[str]) -> str:
    return min(map(stacks.block, leaves), key=backbone.blocks.index)
