"""Magnitude: the elements with the largest, or the smallest, absolute values.

Needs no data. Source: per neuron and largest, "NeuroAda" (arXiv:2510.18940), which
trains what it selects as a difference beside the frozen weights, the same function;
over the network and smallest, "PaFI" (arXiv:2305.16742) and, below a threshold
instead of by count, "SaRA" (arXiv:2409.06633), which also adds a penalty and selects
anew once.
"""

from typing import Any

import jax

from subtune_jax import scores
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

TINY: dict[str, Any] = {"count": 1}


def make(
    scope: str = "neuron",
    fraction: float | None = None,
    count: int | None = None,
    budget_bytes: int | None = None,
    largest: bool = True,
    among: str = r".*kernel",
    extras: str | None = None,
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

    Raises:
      ValueError: in `init`, a pattern matches nothing or there is less than `count`.
    """

    def init(evidence: Evidence) -> Selection:
        head = evidence.blocks[-1:]
        sizes = scores.magnitude(masks.find(evidence.params, among, head))
        if not largest:
            sizes = jax.tree.map(lambda size: -size, sizes)
        chosen = choose.by_scope(
            sizes, scope, fraction, count, budget_bytes=budget_bytes
        )
        mask = masks.fill(evidence.params, chosen)
        return Selection(mask, masks.besides(evidence.params, mask, extras, head))

    return Selector(init)
