"""Magnitude: the elements with the largest, or the smallest, absolute values.

Needs no data. Source: per neuron and largest, "NeuroAda" (arXiv:2510.18940), which
trains what it selects as a difference beside the frozen weights, the same function;
over the network and smallest, "PaFI" (arXiv:2305.16742) and, below a threshold
instead of by count, "SaRA" (arXiv:2409.06633), which also adds a penalty and selects
anew once. `neuroada` and `pafi` are presets of this file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from subtune_jax import Evidence, Selector, choose, score_then_choose, scores

TINY: dict[str, Any] = {"count": 1}


def make(
    scope: str = "neuron",
    fraction: float | None = None,
    count: int | None = None,
    budget_bytes: int | None = None,
    largest: bool = True,
    among: str = r".*kernel",
    extras: str | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Selector:
    """Trains the elements of largest magnitude, ties to the first.

    Args:
      scope: what the budget is for: each `"neuron"`, each `"array"`, each `"block"` or
        the `"network"`.
      fraction: share in [0, 1] of the elements of each scope, one element at least
        unless it is 0; give one of `fraction`, `count` and `budget_bytes`.
      count: number of elements of each scope, 1 or more; give one of `fraction`,
        `count` and `budget_bytes`.
      budget_bytes: bytes of each scope's part of the delta, 8 an element, 8 or more;
        give one of `fraction`, `count` and `budget_bytes`.
      largest: whether the largest magnitudes are chosen; False for the smallest.
      among: regular expression over whole paths: the arrays that elements are chosen
        from. In the scope `"neuron"` nothing of vectors is chosen: they have no inputs.
      extras: regular expression over whole paths: what is trained besides, such as
        `.*/bias`; counted apart. None for nothing.
      neuron_axes: of the scope `"neuron"`: leaf path -> its output axes, such as
        `{"query/kernel": (1, 2)}`; None for the last axis of every array.

    Raises:
      ValueError: in `init`, a pattern matches nothing or there is less than `count`.
    """

    def score(evidence: Evidence, leaves: Any) -> Any:
        del evidence
        sizes = scores.magnitude(leaves)
        return sizes if largest else jax.tree.map(lambda size: -size, sizes)

    def best(sizes: Any) -> Any:
        return choose.by_scope(sizes, scope, fraction, count, neuron_axes, budget_bytes)

    return score_then_choose(score, best, among, extras)
