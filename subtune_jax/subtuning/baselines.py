"""Baselines: what a search trains at its end, to compare what it selected with."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from subtune_jax.core.registry import near
from subtune_jax.selection.reach import REPEATED
from subtune_jax.subtuning import trials
from subtune_jax.subtuning.candidates import Candidate, Set
from subtune_jax.subtuning.trials import Testbed

ROWS = (
    "selected",
    "head",
    "full",
    "lp_ft",
    "blocks_only",
    "selected_then_full",
    "random_blocks",
    "last_blocks",
    "auto_rgn",
)


class BaselineOptions(NamedTuple):
    """What is trained at the end; see `make`."""

    rows: tuple[str, ...]
    repeats: int
    rates: tuple[float, ...]


def make(
    rows: Sequence[str] = ("selected", "head", "full"),
    repeats: int = 3,
    rates: Sequence[float] = (1.0,),
) -> BaselineOptions:
    """Options of final trainings.

    Args:
      rows: some of these. `selected`: what the search returned; `head`: the linear
        probe; `full`: true full fine-tuning, stem, embeddings and final norm included,
        from a new head; `lp_ft`: the same from the linear probe's head
        (arXiv:2202.10054; as `full` where the optimiser has no probe steps);
        `blocks_only`: what SubTuning's released code calls fine-tuning, the repeated
        blocks alone;
        `selected_then_full`: `selected`, then `full` from there, as many steps again;
        `random_blocks`, `last_blocks`: as many blocks as were selected, one at least,
        the random ones among the others (among all where too few others are left);
        `auto_rgn`: as `lp_ft`, each array at the rate of its relative gradient norm.
      repeats: trainings of each row, from another head and in another order; 0: none.
      rates: factors of the optimiser's learning rate that are tried for each row on
        the first fold; the best is used, the first one on a tie.

    Raises:
      ValueError: an unknown row, or a number out of its range.
    """
    for name in rows:
        if name not in ROWS:
            raise ValueError(f"baselines.rows has {name!r}; {near(name, ROWS)}")
    if repeats < 0:
        raise ValueError(f"baselines.repeats={repeats}; it must be 0 or more")
    if not rates or min(rates) <= 0:
        raise ValueError(
            f"baselines.rates={tuple(rates)}; one or more positive factors"
        )
    return BaselineOptions(tuple(rows), repeats, tuple(rates))


class Baseline(NamedTuple):
    """A row of final trainings: its stages, one candidate each.

    Attributes:
      name: of the row.
      stages: trained one after the other.
      probed: whether it starts from the linear probe's head, not from a new one.
      relative: whether the rates of arrays are set by Auto-RGN.
    """

    name: str
    stages: tuple[Candidate, ...]
    probed: bool = True
    relative: bool = False


def plan(
    testbed: Testbed, rows: Sequence[str], selected: Set, blocks: Sequence[str]
) -> list[Baseline]:
    """The rows as candidates.

    Args:
      testbed: of the search.
      rows: some of `ROWS`.
      selected: blocks or arrays, what the search returned.
      blocks: all below the head that have parameters.
    """
    repeated = [b for b in blocks if re.fullmatch(REPEATED, b)] or blocks
    owners = {name.split("/")[0] for name in selected}
    count = max(len(owners), 1)
    others = [block for block in blocks if block not in owners]
    pool = others if len(others) >= count else list(blocks)
    drawn = random.Random(testbed.setup.settings["seed"]).sample(pool, count)
    stages: dict[str, tuple[Sequence[str], ...]] = {
        "selected": (selected,),
        "head": ((),),
        "full": (blocks,),
        "lp_ft": (blocks,),
        "blocks_only": (repeated,),
        "selected_then_full": (selected, blocks),
        "random_blocks": (drawn,),
        "last_blocks": (blocks[-count:],),
        "auto_rgn": (blocks,),
    }
    return [
        Baseline(
            name,
            tuple(trials.candidate(testbed, names) for names in stages[name]),
            probed=name != "full",
            relative=name == "auto_rgn",
        )
        for name in rows
    ]
