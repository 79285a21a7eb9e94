"""SHiRA: one or two percent of every weight, by one of five masks.

Source: Bhardwaj et al., "Sparse High Rank Adapters", arXiv:2406.13175, whose masks are
called Struct, Rand, WM, Grad and SNIP. Struct trains every f-th row or column and the
diagonal, with f set by how sparse the mask shall be; the others choose elements of each
array at random, by `abs(weight)`, by `abs(gradient)` and by `abs(weight * gradient)`,
the gradient from a small calibration set. Hugging Face PEFT has the random mask alone;
no code of the authors was read.

The paper does not say which of rows and columns Struct trained, from which one on, what
the diagonal of a matrix is that is not square, or how large the calibration set was.
Here a weight is read as `[fan_in, out]`; Struct trains neurons 0, f, 2 f and so on
whole, with the elements `(i, i)`, for the smallest f at which that fits in the share.
The paper's random mask draws each element alone (Bernoulli); ours has an exact count,
as that in PEFT.
"""

from typing import Any

import jax
import numpy as np

from subtune_jax import (
    Evidence,
    Selector,
    check_choice,
    choose,
    score_then_choose,
    scores,
    trees,
)

KINDS = ("struct", "random", "magnitude", "gradient", "snip")
TINY: dict[str, Any] = {"fraction": 0.1, "batches": 1}


def make(
    kind: str = "snip",
    fraction: float = 0.01,
    batches: int = 8,
    among: str = r".*kernel",
) -> Selector:
    """Trains a share of each array, by one of five rules; ties to the first.

    Args:
      kind: the rule: `"struct"`, `"random"`, `"magnitude"`, `"gradient"` or `"snip"`.
      fraction: share in [0, 1] of each array, one element at least unless it is 0; of
        `"struct"` at least the first neuron and the diagonal.
      batches: number of batches whose gradients are summed, for `"gradient"` and
        `"snip"`, 0 or more; 0 for one pass through the training examples.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.

    Raises:
      ValueError: an unknown kind, or a number out of its range; in `init`, `among`
        matches nothing, or for `"struct"` a vector.
    """
    check_choice("shira kind", kind, KINDS)
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if batches < 0:
        raise ValueError(f"shira batches={batches}; it must be 0 or more")

    def score(evidence: Evidence, leaves: dict[str, Any]) -> Any:
        if kind == "struct":
            return leaves  # their shapes alone decide
        return _scores(evidence, kind, leaves, batches or evidence.epoch_batches)

    def best(leaves: dict[str, Any]) -> dict[str, np.ndarray]:
        if kind == "struct":
            return {p: _struct(p, np.shape(x), fraction) for p, x in leaves.items()}
        return choose.top_per_array(leaves, fraction)

    return score_then_choose(score, best, among)


def _struct(path: str, shape: tuple[int, ...], fraction: float) -> np.ndarray:
    """Every f-th neuron and the diagonal of an array read as `[fan_in, out]`."""
    if len(shape) < 2:
        raise ValueError(f"shira kind='struct' of {path!r} {shape}; it has no diagonal")
    flags = np.zeros(shape, bool).reshape(-1, shape[-1])
    (fan_in, out), diagonal = flags.shape, min(flags.shape)
    budget = choose.share(fraction, flags.size)
    if budget == 0:
        return flags.reshape(shape)

    def held(every: int) -> int:  # an element of both is in the mask once
        return -(-out // every) * fan_in + diagonal - -(-diagonal // every)

    fitting = (every for every in range(1, out) if held(every) <= budget)
    flags[:, :: next(fitting, out)] = True
    np.fill_diagonal(flags, True)
    return flags.reshape(shape)


def _scores(evidence: Evidence, kind: str, leaves: dict[str, Any], batches: int) -> Any:
    if kind == "random":
        return scores.random(leaves, evidence.seed)
    sizes = scores.magnitude(leaves)
    if kind == "magnitude":
        return sizes
    arguments = evidence.loss_fn, evidence.params, evidence.batches(batches)
    gradients = trees.pick(scores.gradient(*arguments, "abs_of_sum"), leaves)
    slopes = {path: np.asarray(slope) for path, slope in gradients.items()}
    return slopes if kind == "gradient" else jax.tree.map(np.multiply, sizes, slopes)
