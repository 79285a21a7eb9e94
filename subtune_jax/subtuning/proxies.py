"""Cheap scores of blocks, to compare with the profile: can a minute replace an hour?

One pass over some training batches gives the gradient of the whole base, with the
fold's head (a linear probe, if the optimiser has such steps; a random head would
say more of itself than of the base). Scores of a block are sums over its arrays.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from subtune_jax.core import devices, trees
from subtune_jax.core.registry import near
from subtune_jax.data import dataset
from subtune_jax.optim import optimizer
from subtune_jax.subtuning import journal, trainer, trials
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trials import Testbed
from subtune_jax.training import block_programs, program
from subtune_jax.training.program import Program
from subtune_jax.training.run import fit
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup

BATCHES = 8
KEY = "proxies "  # how their key in the journal begins
HORIZON = 10**6  # steps of a schedule whose first step has the peak rate


class BlockEvidence(NamedTuple):
    """What training batches show of one block.

    Attributes:
      mean: path in the block -> mean gradient over batches, float64.
      squares: path -> mean of the squared gradients of batches.
      weights: path -> the base's values.
      drop: by how much one step of this block and the head lowers the loss of other
        training batches, beyond what a step of the head alone does.
      place: of the block in the network, from 0.
    """

    mean: Mapping[str, np.ndarray]
    squares: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    drop: float
    place: int


def _norm(arrays: Mapping[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(x).sum() for x in arrays.values())))


def _noise(block: BlockEvidence) -> float:
    """Standard deviation of a batch's gradient around the mean, as a norm."""
    variance = {p: block.squares[p] - np.square(x) for p, x in block.mean.items()}
    return float(np.sqrt(max(sum(v.sum() for v in variance.values()), 1e-30)))


PROXIES: dict[str, Callable[[BlockEvidence], float]] = {
    "gradient_norm": lambda block: _norm(block.mean),
    # Auto-RGN of arXiv:2210.11466, there of single arrays and averaged over batches.
    "relative_gradient_norm": lambda block: _norm(block.mean) / _norm(block.weights),
    # What Child-Tuning, SPT and DPS call Fisher information.
    "squared_gradient": lambda block: sum(x.sum() for x in block.squares.values()),
    "signal_to_noise": lambda block: _norm(block.mean) / _noise(block),
    "snip": lambda block: sum(
        np.abs(x * block.weights[p]).sum() for p, x in block.mean.items()
    ),
    "loss_drop": lambda block: block.drop,
    # Controls that look at no data.
    "parameters": lambda block: sum(x.size for x in block.weights.values()),
    "depth": lambda block: block.place,
}


def known() -> str:
    """The names, for messages."""
    return f"there are all, {', '.join(PROXIES)}"


def parse(text: str | None) -> list[str]:
    """The proxies of `all` or `NAME,NAME`; ValueError for an unknown one."""
    if text is None:
        return []
    names = list(PROXIES) if text == "all" else text.split(",")
    for name in names:
        if name not in PROXIES:
            raise ValueError(f"no proxy named {name!r}; {near(name, PROXIES)}")
    return names


def scores(
    testbed: Testbed, blocks: Sequence[str], record: Journal, count: int = BATCHES
) -> dict[str, Any]:
    """Name -> block -> score, for every proxy, and the `seconds` that all took.

    Args:
      testbed: scores are means over the first fold of every seed.
      blocks: that are scored.
      record: what it knows is not computed again.
      count: of batches, each.
    """
    key = f"{KEY}{json.dumps([list(blocks), count])}"
    if key not in record.records:
        begin = time.perf_counter()
        firsts = {fold.seed: fold for fold in reversed(testbed.folds)}.values()
        by_fold = [evidence(testbed, blocks, fold.number, count) for fold in firsts]
        by_name = {
            name: {b: float(np.mean([score(x[b]) for x in by_fold])) for b in blocks}
            for name, score in PROXIES.items()
        }
        seconds = time.perf_counter() - begin
        journal.write(record, key, {"scores": by_name, "seconds": seconds})
    return record.records[key]


def compare(
    scores: Mapping[str, Any], names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Name -> `scores` of blocks, `rank_correlation` to a profile, `seconds` of all.

    Args:
      scores: from the function of that name.
      names: of proxies.
      rows: of the profile; those of single blocks are correlated (Spearman), None
        where there are fewer than three or all are equal.
    """
    means = {row["blocks"][0]: row["mean"] for row in rows if len(row["blocks"]) == 1}
    content = {}
    for name in names:
        by_block = scores["scores"][name]
        pairs = [(by_block[b], means[b]) for b in by_block if b in means]
        content[name] = {
            "scores": by_block,
            "rank_correlation": rank_correlation(pairs),
            "seconds": scores["seconds"],
        }
    return content


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where it is not defined.

    >>> rank_correlation([(1, 10), (2, 20), (3, 30)])
    1.0
    """
    columns = list(zip(*pairs, strict=True))
    if len(pairs) < 3 or any(len(set(column)) == 1 for column in columns):
        return None
    return round(float(stats.spearmanr(*columns).statistic), 12)


def evidence(
    testbed: Testbed, blocks: Sequence[str], number: int, count: int
) -> dict[str, BlockEvidence]:
    """What `count` training batches of fold `number` show of each block."""
    fold, whole = testbed.folds[number], trials.candidate(testbed, blocks)
    own, built = _training(testbed, whole, fold)
    store, total = testbed.trainer.trunk.store, None
    for piece in built.feed.pieces(0, count):
        placed = devices.spread(built.devices, piece)
        grads = block_programs.gradient(
            store, built.recipe, built.state, built.fixed, placed
        ).grads
        flat = trees.flatten({b: grads[b] for b in blocks})
        wide = {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}
        both: Any = wide, {path: np.square(leaf) for path, leaf in wide.items()}
        total = both if total is None else jax.tree.map(np.add, total, both)
    mean, squares = jax.tree.map(lambda leaf: leaf / count, total)
    weights = trees.flatten({b: own.base.params[b] for b in blocks})
    drops = _drops(testbed, blocks, number, count)
    return {
        block: BlockEvidence(
            mean=_inside(block, mean),
            squares=_inside(block, squares),
            weights=_inside(block, weights),
            drop=drops[block],
            place=place,
        )
        for place, block in enumerate(blocks)
    }


def _drops(
    testbed: Testbed, blocks: Sequence[str], number: int, count: int
) -> dict[str, float]:
    """`drop` of each block: a step on the first batch, the loss of the others."""
    fold, setup = testbed.folds[number], testbed.setup
    size, pool = setup.settings["batch_size"], testbed.trainer.pool
    others = dataset.part(pool, fold.train[: (count - 1) * size])

    def loss(candidate: Candidate) -> float:
        _, built = _training(testbed, candidate, fold)
        guesses = program.logits(built, fit(built, 1).state, others)
        return trials.held_loss(setup, guesses, others.labels)

    alone = loss(Candidate())
    return {b: alone - loss(trials.candidate(testbed, [b])) for b in blocks}


def _training(
    testbed: Testbed, candidate: Candidate, fold: Fold
) -> tuple[Setup, Program]:
    """By blocks, without augmentation, at the peak of the learning rate."""
    settings: Settings = {
        **testbed.setup.settings["optimizer"],
        **{"warmup_steps": 0, "probe_steps": 0, "rgn_steps": 0, "accumulate_steps": 1},
        "ema": 0.0,  # the loss is that after the step
    }
    updates = optimizer.make(**settings)
    return trainer.training(
        testbed.trainer, candidate, fold, updates, steps=HORIZON, augmented=False
    )


def _inside(block: str, flat: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The block's own leaves, float64."""
    return {
        path.split("/", 1)[1]: np.asarray(leaf, np.float64)
        for path, leaf in flat.items()
        if path.split("/")[0] == block
    }
