"""Cheap scores of blocks, to be held against the profile: can a minute replace an hour?

One pass over some training batches gives the gradient of the whole base, with the
fold's head (a linear probe, if the optimiser has such steps; a random head would
say more of itself than of the base). Scores of a block are sums over its arrays.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from subtune_jax.core import trees
from subtune_jax.core.registry import near
from subtune_jax.data import augment, dataset
from subtune_jax.optim import optimizer
from subtune_jax.subtuning import block_trainer, trial_state, trials
from subtune_jax.subtuning import journal as journals
from subtune_jax.subtuning.journal import Journal
from subtune_jax.subtuning.trial_state import Candidate
from subtune_jax.subtuning.trials import Trials
from subtune_jax.training.settings import Settings

BATCHES = 8
KEY = "proxies "  # how their key in the journal begins
HORIZON = 10**6  # steps of a schedule whose first step has the peak rate


class Seen(NamedTuple):
    """What was seen of one block.

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


def _noise(seen: Seen) -> float:
    """Standard deviation of a batch's gradient around the mean, as a norm."""
    variance = {p: seen.squares[p] - np.square(x) for p, x in seen.mean.items()}
    return float(np.sqrt(max(sum(v.sum() for v in variance.values()), 1e-30)))


PROXIES: dict[str, Callable[[Seen], float]] = {
    "gradient_norm": lambda seen: _norm(seen.mean),
    # Auto-RGN of arXiv:2210.11466, there of single arrays and averaged over batches.
    "relative_gradient_norm": lambda seen: _norm(seen.mean) / _norm(seen.weights),
    # What Child-Tuning, SPT and DPS call Fisher information.
    "squared_gradient": lambda seen: sum(x.sum() for x in seen.squares.values()),
    "signal_to_noise": lambda seen: _norm(seen.mean) / _noise(seen),
    "snip": lambda seen: sum(
        np.abs(x * seen.weights[p]).sum() for p, x in seen.mean.items()
    ),
    "loss_drop": lambda seen: seen.drop,
    # Controls that look at no data.
    "parameters": lambda seen: sum(x.size for x in seen.weights.values()),
    "depth": lambda seen: seen.place,
}


def known() -> str:
    """The names, for messages."""
    return f"there are all, {', '.join(PROXIES)}"


def wanted(given: str | None) -> list[str]:
    """The proxies of `all` or `NAME,NAME`; ValueError for an unknown one."""
    if given is None:
        return []
    chosen = list(PROXIES) if given == "all" else given.split(",")
    for name in chosen:
        if name not in PROXIES:
            raise ValueError(f"no proxy named {name!r}; {near(name, PROXIES)}")
    return chosen


def scores(
    tried: Trials, blocks: Sequence[str], journal: Journal, count: int = BATCHES
) -> dict[str, Any]:
    """Name -> block -> score, for every proxy, and the `seconds` that all took.

    Args:
      tried: the trials; scores are means over the first fold of every seed.
      blocks: that are scored.
      journal: what it knows is not computed again.
      count: of batches, each.
    """
    key = f"{KEY}{json.dumps([list(blocks), count])}"
    if key not in journal.records:
        begin = time.perf_counter()
        firsts = {fold.seed: fold for fold in reversed(tried.folds)}.values()
        seen = [look(tried, blocks, fold.number, count) for fold in firsts]
        found = {
            name: {b: float(np.mean([score(one[b]) for one in seen])) for b in blocks}
            for name, score in PROXIES.items()
        }
        seconds = time.perf_counter() - begin
        journals.write(journal, key, {"scores": found, "seconds": seconds})
    return journal.records[key]


def beside(
    scored: Mapping[str, Any], chosen: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Name -> `scores` of blocks, `rank_correlation` to a profile, `seconds` of all.

    Args:
      scored: from `scores`.
      chosen: names of proxies.
      rows: of the profile; those of single blocks are correlated (Spearman), None
        where there are fewer than three or all are equal.
    """
    means = {row["blocks"][0]: row["mean"] for row in rows if len(row["blocks"]) == 1}
    found = {}
    for name in chosen:
        each = scored["scores"][name]
        both = [(each[b], means[b]) for b in each if b in means]
        found[name] = {"scores": each, "rank_correlation": rank_correlation(both)}
        found[name]["seconds"] = scored["seconds"]
    return found


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where it is not defined.

    >>> rank_correlation([(1, 10), (2, 20), (3, 30)])
    1.0
    """
    columns = list(zip(*pairs, strict=True))
    if len(pairs) < 3 or any(len(set(column)) == 1 for column in columns):
        return None
    return round(float(stats.spearmanr(*columns).statistic), 12)


def look(
    tried: Trials, blocks: Sequence[str], number: int, count: int
) -> dict[str, Seen]:
    """What `count` training batches of fold `number` show of each block."""
    fold, whole = tried.folds[number], trials.candidate(tried, blocks)
    plain = tried.course.made._replace(augment=augment.NONE)
    course = tried.course._replace(made=plain)
    state = block_trainer.begin(course, whole, fold)
    mine = trial_state.network(course, whole, fold)
    total: Any = None
    for x, targets, weight in trial_state.batches(course, whole, fold, 0, count):
        grads = block_trainer.slopes(course, mine, state, x, targets, weight).grads
        flat = trees.flatten({b: grads[b] for b in blocks})
        wide = {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}
        both = wide, {path: np.square(leaf) for path, leaf in wide.items()}
        total = both if total is None else jax.tree.map(np.add, total, both)
    mean, squares = jax.tree.map(lambda leaf: leaf / count, total)
    weights = trees.flatten({b: tried.made.base.params[b] for b in blocks})
    drops = _drops(tried, blocks, number, count)
    return {
        block: Seen(
            mean=_inside(block, mean),
            squares=_inside(block, squares),
            weights=_inside(block, weights),
            drop=drops[block],
            place=place,
        )
        for place, block in enumerate(blocks)
    }


def _drops(
    tried: Trials, blocks: Sequence[str], number: int, count: int
) -> dict[str, float]:
    """`Seen.drop` of each block: a step on the first batch, the loss of the others."""
    fold, made = tried.folds[number], tried.made
    chosen: Settings = made.settings["optimizer"]
    settings: Settings = {**chosen, "warmup_steps": 0, "probe_steps": 0}
    course = tried.course._replace(
        made=made._replace(augment=augment.NONE),
        optimizer=optimizer.make(**settings),
        train_steps=HORIZON,
    )
    size, labels = course.trunk.rows.batch_size, course.trunk.images.labels
    others = fold.train[: (count - 1) * size]
    targets = dataset.target(labels[others], len(made.task.classes))

    def loss(one: Candidate) -> float:
        state = block_trainer.advance(
            course, one, fold, block_trainer.begin(course, one, fold), 1
        )
        logits = block_trainer.logits(course, one, fold, state, others)
        return float(made.task.loss(jnp.asarray(logits), targets).mean())

    alone = loss(Candidate())
    return {b: alone - loss(trials.candidate(tried, [b])) for b in blocks}


def _inside(block: str, flat: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The block's own leaves, float64."""
    return {
        path.split("/", 1)[1]: np.asarray(leaf, np.float64)
        for path, leaf in flat.items()
        if path.split("/")[0] == block
    }
