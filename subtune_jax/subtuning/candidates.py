"""Candidates of a profile or of a search: which sets are trained, each by itself."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from subtune_jax.core.registry import check_choice

Set = tuple[str, ...]  # blocks or arrays by name, in the order of the network
REINITIALISED = ("nothing", "trained", "frozen", "full")


class Candidate(NamedTuple):
    """Where the base may change in a trial; the head is trained with any.

    Attributes:
      trained: paths of leaves, sorted.
      fresh: blocks that start from random values instead of the base's.
    """

    trained: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


class CandidateOptions(NamedTuple):
    """What is profiled; see `make`."""

    runs: tuple[int, ...]
    pairs: bool
    full: bool
    reinitialise: str


def make(
    runs: Sequence[int] = (1,),
    pairs: bool = False,
    full: bool = True,
    reinitialise: str = "nothing",
) -> CandidateOptions:
    """Options of a profile.

    Args:
      runs: lengths of runs of consecutive blocks: 1 for each block alone.
      pairs: every pair of blocks as well.
      full: all blocks together as a reference; the head alone always is one.
      reinitialise: `trained`: a set starts from random values instead of the base's
        (is it the pretrained weight or the place that matters?); `frozen`: the set is
        random and stays so, and the head alone is trained; `full`: the set is random
        and everything is trained (as in arXiv:2004.14975).

    Raises:
      ValueError: a length below 1, or an unknown name.
    """
    check_choice("candidates.reinitialise", reinitialise, REINITIALISED)
    if any(length < 1 for length in runs):
        raise ValueError(f"candidates.runs={tuple(runs)}; lengths are 1 or more")
    return CandidateOptions(tuple(runs), pairs, full, reinitialise)


def sets(blocks: Sequence[str], options: CandidateOptions) -> list[Set]:
    """The sets of a profile, each once: the empty one, runs, pairs, and all blocks.

    >>> sets("abc", make(runs=(1, 2), pairs=False, full=True))[4:]
    [('a', 'b'), ('b', 'c'), ('a', 'b', 'c')]
    """
    every: list[Set] = [()]
    for length in options.runs:
        every += runs(blocks, length)
    if options.pairs:
        every += itertools.combinations(blocks, 2)
    if options.full:
        every.append(tuple(blocks))
    return list(dict.fromkeys(every))


def runs(blocks: Sequence[str], length: int) -> list[Set]:
    """Every run of `length` consecutive blocks."""
    last = len(blocks) - length + 1
    return [tuple(blocks[first : first + length]) for first in range(last)]


def changes(items: Set, current: Set, direction: str) -> list[Set]:
    """The sets of a round of a search, in the order of what they add or remove.

    One item more; going `backward`, one less; going `contiguous`, all runs, the shorter
    first, and none once one was chosen.
    """
    if direction == "backward":
        return [tuple(i for i in current if i != out) for out in current]
    if direction == "contiguous":
        lengths = () if current else range(1, len(items) + 1)
        return [run for length in lengths for run in runs(items, length)]
    rest = [item for item in items if item not in current]
    return [tuple(i for i in items if i in (*current, new)) for new in rest]
