"""What cutting each batch of texts to a length of its own saves over padding them all.

The config's network, method and task, at most `LENGTH` tokens a text, the batches of
the first epoch. What a step costs depends on how long its batch is and on nothing else:
so one batch of each length is timed, and counted as often as there are such batches.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from subtune_jax.core import devices, method
from subtune_jax.data import batches
from subtune_jax.data.batches import Feed, Piece
from subtune_jax.study import step_runs, timing
from subtune_jax.training import program
from subtune_jax.training.program import Program
from subtune_jax.training.settings import with_changes
from subtune_jax.training.setup import Setup, batch_rows, prepare
from subtune_jax.training.step import State

LENGTH = 128  # tokens of a text at most, and of every text where batches are not cut
LIMIT = 1 / 1.5
NO_TEXTS = "only for networks of texts"


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Times of a step at each length, and their mean over an epoch.

    Returns:
      `batches`: length -> how many of the epoch are cut to it; `programs`: how many
      these lengths need; `tokens`: share of places that hold one, in batches that are
      `cut` and `padded`; `milliseconds`: of a step at each length, of one `padded` to
      `LENGTH`, and of the mean step of an epoch that is `cut`; `ratios`: `cut by
      padded`, in the same turns; `checks`. Only `reason` and no checks for images.
    """
    if setup.backbone.encode is None:
        return {"reason": NO_TEXTS, "checks": []}
    cut, padded = _prepared(setup, None), _prepared(setup, ())
    first, counts, tokens = _epoch(cut)
    moves = cut.selector.update is not method.hold
    plan = step_runs.plan_of(cut, moves=moves)
    total = cut.settings["train_steps"]
    text_run = program.build(cut, plan, cut.optimizer, total, selector=cut.selector)
    pieces = {str(length): piece for length, piece in sorted(first.items())}
    pieces["padded"] = next(_feed(padded).pieces(0, 1))
    states = [text_run.state]
    steps = {name: _stepping(text_run, states, piece) for name, piece in pieces.items()}
    seconds = timing.by_turns(steps, repeats)
    seconds["cut"] = _mean(seconds, counts)
    ratio = timing.ratio(seconds["cut"], seconds["padded"])
    return {
        "batches": {str(length): counts[length] for length in sorted(counts)},
        "programs": len(counts),
        "tokens": {
            "cut": tokens / sum(length * n for length, n in counts.items()),
            "padded": tokens / (LENGTH * sum(counts.values())),
        },
        "milliseconds": {
            name: {k: 1e3 * v for k, v in timing.spread(turns).items()}
            for name, turns in seconds.items()
        },
        "ratios": {"cut by padded": ratio},
        "checks": [timing.check("cut by padded", ratio["median"], LIMIT)],
    }


def _mean(
    seconds: Mapping[str, Sequence[float]], counts: Mapping[int, int]
) -> list[float]:
    """Of each turn, the mean over an epoch of a step at the length of its batch."""
    turns = zip(*(seconds[str(length)] for length in counts), strict=True)
    weights = list(counts.values())
    return [float(np.average(turn, weights=weights)) for turn in turns]


def _prepared(setup: Setup, lengths: tuple[int, ...] | None) -> Setup:
    """The setup with texts of `LENGTH`, batches cut to `lengths`; None: as usual."""
    backbone = {"length": LENGTH, "lengths": lengths}
    settings = with_changes(
        setup.settings, {"backbone": backbone, "trunk_cache": False}
    )
    return prepare(settings)._replace(devices=setup.devices)


def _feed(setup: Setup) -> Feed:
    rows = batch_rows(setup)
    return batches.training(setup.train, rows, setup.settings["seed"])


def _epoch(setup: Setup) -> tuple[dict[int, Piece], dict[int, int], float]:
    """Of the first epoch's whole batches.

    Returns:
      Length -> the first batch that is cut to it; length -> how many are; and the
      tokens of a mean text of each, added up.
    """
    first: dict[int, Piece] = {}
    counts: collections.Counter[int] = collections.Counter()
    tokens = 0.0
    steps = len(setup.train.labels) // setup.settings["batch_size"]
    for piece in _feed(setup).pieces(0, steps):
        length = piece["inputs"].shape[1]
        first.setdefault(length, piece)
        counts[length] += 1
        real = piece["inputs"][piece["weight"] > 0, :, 1] > 0
        tokens += float(np.sum(real) / len(real))
    return first, dict(counts), tokens


def _stepping(run: Program, states: list[State], piece: Piece) -> Callable[[], None]:
    """A call takes one more step on `piece`, by the program of its length."""
    placed = devices.spread(run.devices, piece)

    def step() -> None:
        after = run.step(states[0], run.fixed, placed)
        states[0], _ = jax.block_until_ready(after)

    return step
