"""FISH: the elements with the largest empirical Fisher information, network-wide.

Source: Sung, Nair and Raffel, "Training Neural Networks with Fixed Sparse Masks",
arXiv:2111.09839, and its released code. Both sum the squared gradient of single
examples, of the loss of their label, and take the largest sums of all arrays together,
biases and norms included. The code counts the classifier, which is always trained,
inside the budget, as we do: the base gets what the head leaves. Its scripts use 1,024
examples and half a percent; it rounds the budget down, we round it to the nearest.

Its other score, `expect`, weighs the squares of every class by the network's own
probability of it. That needs logits, and evidence has none: it is left out. So are its
absolute values in place of squares, which its scripts do not use. Its network is in
training mode while it scores, ours in evaluation mode.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from subtune_jax import (
    Evidence,
    Selection,
    Selector,
    choose,
    score_then_choose,
    scores,
    trees,
)

TINY: dict[str, Any] = {"fraction": 0.2, "examples": 4}


def make(fraction: float = 0.005, examples: int = 1024) -> Selector:
    """Trains the elements of largest Fisher information, ties to the first.

    Args:
      fraction: share in [0, 1] of all elements that is trained, the head counted in
        both numbers.
      examples: number of training examples that are scored, 1 or more; where there are
        fewer, one pass through whole batches.

    Raises:
      ValueError: a number out of its range; in `init`, the head alone is all of the
        budget or more.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if examples < 1:
        raise ValueError(f"fish examples={examples}; it must be 1 or more")

    def score(evidence: Evidence, leaves: Any) -> Any:
        del leaves
        batches = _first(evidence, examples)
        arguments = evidence.loss_fn, evidence.params, batches
        return scores.gradient(*arguments, scores.PER_EXAMPLE)

    def init(evidence: Evidence) -> Selection:
        count = _budget(evidence, fraction)
        best = functools.partial(choose.top_overall, count=count)
        return score_then_choose(score, best, ".*").init(evidence)

    return Selector(init)


def _budget(evidence: Evidence, fraction: float) -> int:
    """How many elements of the base may move."""
    sizes = {
        path: np.size(leaf) for path, leaf in trees.leaves(evidence.params).items()
    }
    inside = f"{evidence.blocks[-1]}/"
    head = sum(size for path, size in sizes.items() if path.startswith(inside))
    total = sum(sizes.values())
    budget = choose.share(fraction, total)
    if budget <= head:
        what = f"fish fraction={fraction} of {total:,} elements is {budget:,}"
        raise ValueError(f"{what}; the head alone has {head:,}")
    return budget - head


def _first(evidence: Evidence, examples: int) -> Iterator[Any]:
    """Batches of the first training examples, the last one cut to their number."""
    (probe,) = evidence.batches(1)
    size = len(jax.tree.leaves(probe)[0])
    count = min(-(-examples // size), evidence.epoch_batches)
    for batch in evidence.batches(count):
        rows = min(size, examples)
        yield jax.tree.map(lambda x, rows=rows: x[:rows], batch)
        examples -= rows
