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
      scope: the budget is for each `"neuron"`, each `"array"`, each `"block"` or the
        `"network"`.
      fraction: share of each in [0, 1]; at least one element unless it is 0.
      count: number of elements of each.
      budget_bytes: of the delta of each, 8 bytes an element; exactly one of the three.
      largest: False for the smallest.
      among: regular expression over whole paths: the arrays that are chosen from. Of
        vectors the scope `"neuron"` chooses nothing: they have no inputs.
      extras: regular expression over whole paths of what is trained besides, such as
        `.*/bias`; counted apart.
      neuron_axes: of the scope `"neuron"`, as in `choose.top_per_neuron`.

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
