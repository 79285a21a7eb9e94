"""GPS: of every neuron the inputs with the largest gradient, all biases, the head.

Source: Zhang et al., "Gradient-based Parameter Selection for Efficient Fine-Tuning",
arXiv:2312.10136, and its released code. Both score by a supervised contrastive loss on
the features, since a new head's gradient says little; both take the K largest
`abs(sum of batch gradients)` over one pass through the training data for each row of
every weight. The paper trains these alone; the code also trains all biases but those
of norms, LayerScale, and the head, as we do (`biases`). It trains by masked Adam of
full size; here the state has the size of what is selected. Of its augmentation for the
two views we leave out hue and random grey; its network is in training mode with
dropped paths while it scores, ours in evaluation mode.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from subtune_jax import choose, losses, masks, names, scores, trees
from subtune_jax.contracts import Evidence, Mask, Selection, Selector

TINY: dict[str, Any] = {"loss": "task"}
LOSSES = ("contrastive", "task")
RIDING = re.compile(r"(?!.*norm)(.*/)?(bias|scale\d)")  # the latter: LayerScale


def make(
    k: int = 1,
    loss: str = "contrastive",
    batches: int = 0,
    temperature: float = 0.07,
    biases: bool = True,
    among: str = r".*kernel",
    neuron_axes: Mapping[str, Sequence[int]] | None = None,
) -> Selector:
    """Trains `k` inputs of every neuron, and the biases.

    Args:
      k: inputs of each neuron, 1 or more, at most the fan-in of each array.
      loss: that is differentiated: `"contrastive"`, or the `"task"`'s own.
      batches: of gradients; 0 for one pass through the training examples.
      temperature: of the contrastive loss, above 0.
      biases: whether all biases but those of norms are trained besides, and
        LayerScale; counted apart. Some networks have none.
      among: regular expression over whole paths: the arrays that are chosen from.
      neuron_axes: as in `choose.top_per_neuron`.

    Raises:
      ValueError: an unknown loss, or a number out of its range; in `init`, `among`
        matches nothing, or `k` is more than a fan-in.
    """
    names.check_choice("gps loss", loss, LOSSES)
    if batches < 0 or temperature <= 0:
        given = f"batches={batches}, temperature={temperature}"
        raise ValueError(f"gps {given}; they must be 0 or more, and above 0")

    def init(evidence: Evidence) -> Selection:
        head = evidence.blocks[-1:]
        below = masks.find(evidence.params, among, head)
        found = trees.flatten(_scores(evidence, loss, batches, temperature))
        among_scores = {path: found[path] for path in below}
        chosen = choose.top_per_neuron(among_scores, k, neuron_axes)
        mask = masks.fill(evidence.params, chosen)
        return Selection(mask, _riding(evidence, mask) if biases else None)

    return Selector(init)


def _scores(evidence: Evidence, loss: str, batches: int, temperature: float) -> Any:
    count = batches or evidence.epoch_batches
    if loss == "task":
        given = evidence.loss_fn, evidence.params, evidence.batches(count)
        return scores.gradient(*given, "abs_of_sum")
    features, views = evidence.features, evidence.views
    if features is None or views is None:
        missing = "evidence without features and views"
        raise ValueError(f"gps was given {missing}; loss='task' needs neither")

    def contrast(params: Any, batch: Any) -> jax.Array:
        return losses.contrastive(features(params, batch), batch["labels"], temperature)

    return scores.gradient(contrast, evidence.params, views(count), "abs_of_sum")


def _riding(evidence: Evidence, mask: Mask) -> Mask:
    head = evidence.blocks[-1]
    paths = [p for p in trees.flatten(evidence.params) if RIDING.fullmatch(p)]
    below = [path for path in paths if path.split("/")[0] != head]
    riding = masks.fill(evidence.params, dict.fromkeys(below, np.True_))
    return masks.intersect(riding, masks.invert(mask))
