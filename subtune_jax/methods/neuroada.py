"""NeuroAda: of every neuron the K inputs with the largest weights.

Needs no data. Source: "NeuroAda", arXiv:2510.18940, and its released code
(FightingFighting/NeuroAda, `utils/select_para.py`): of each row of the named weights
the K of largest magnitude, K=1 or 20 in its scripts, no biases unless asked for. It
trains differences beside the frozen weights, which is the same function with a state of
the size of what is selected, as here. With K above the fan-in it trains the whole row;
we refuse that.

`magnitude` with `count=K` is the same mask; this file has the paper's defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from subtune_jax import scores
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

TINY: dict[str, Any] = {}


def make(
    k: int = 1,
    among: str = r".*kernel",
    extras: str | None = None,
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Selector:
    """Trains the `k` largest weights of every neuron, ties to the first.

    Args:
      k: inputs of each neuron, 1 or more, at most the fan-in of each array.
      among: regular expression over whole paths: the arrays that are chosen from.
      extras: regular expression over whole paths of what is trained besides, such as
        `.*/bias`; counted apart.
      neuron_axes: as in `choose.top_per_neuron`.

    Raises:
      ValueError: in `init`, a pattern matches nothing, or `k` is no number of inputs.
    """

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        sizes = scores.magnitude(masks.find(params, among, head))
        mask = masks.fill(params, choose.top_per_neuron(sizes, k, neuron_axes))
        return Selection(mask, masks.besides(params, mask, extras, head))

    return Selector(init)
