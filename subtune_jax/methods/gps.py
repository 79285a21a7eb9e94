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

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from subtune_jax import scores
from subtune_jax.core import losses, registry, trees
from subtune_jax.core.contracts import Mask
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

TINY: dict[str, Any] = {"loss": "task"}
LOG = logging.getLogger(__name__)
LOSSES = ("contrastive", "task")
RIDING = re.compile(r"(?!.*norm)(.*/)?(bias|scale\d)")  # the latter: LayerScale


def make(
    k: int = 1,
    loss: str = "contrastive",
    batches: int = 0,
    until: float = 0.0,
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
      until: stop before, once two choices, a tenth of the batches apart, overlap by
        this share, in (0, 1]; the log says after how many. 0 for never.
      temperature: of the contrastive loss, above 0.
      biases: whether all biases but those of norms are trained besides, and
        LayerScale; counted apart. Some networks have none.
      among: regular expression over whole paths: the arrays that are chosen from.
      neuron_axes: as in `choose.top_per_neuron`.

    Raises:
      ValueError: an unknown loss, or a number out of its range; in `init`, `among`
        matches nothing, or `k` is more than a fan-in.
    """
    registry.check_choice("gps loss", loss, LOSSES)
    if batches < 0 or temperature <= 0 or not 0 <= until <= 1:
        given = f"batches={batches}, temperature={temperature}, until={until}"
        ranges = "they must be 0 or more, above 0, and in [0, 1]"
        raise ValueError(f"gps {given}; {ranges}")

    def init(evidence: Evidence) -> Selection:
        below = masks.find(evidence.params, among, evidence.blocks[-1:])

        def pick(scored: Any) -> Mask:
            return choose.top_per_neuron(trees.pick(scored, below), k, neuron_axes)

        count = batches or evidence.epoch_batches
        seen, loss_fn = _batches(evidence, loss, count, temperature)
        given = loss_fn, evidence.params, seen, "abs_of_sum"
        if until:
            rule = scores.Until(until, max(1, count // 10), pick)
            gathered = scores.until_stable(*given, rule)
            LOG.info("gps used %d of %d batches", gathered.used_batches, count)
            found = gathered.scores
        else:
            found = scores.gradient(*given)
        mask = masks.fill(evidence.params, pick(found))
        return Selection(mask, _riding(evidence, mask) if biases else None)

    return Selector(init)


def _batches(
    evidence: Evidence, loss: str, count: int, temperature: float
) -> tuple[Iterable[Any], Callable[[Any, Any], jax.Array]]:
    """What is looked at, and the loss of it."""
    if loss == "task":
        return evidence.batches(count), evidence.loss_fn
    features, views = evidence.features, evidence.views
    if features is None or views is None:
        missing = "evidence without features and views"
        raise ValueError(f"gps was given {missing}; loss='task' needs neither")

    def contrast(params: Any, batch: Any) -> jax.Array:
        return losses.contrastive(features(params, batch), batch["labels"], temperature)

    return views(count), contrast


def _riding(evidence: Evidence, mask: Mask) -> Mask:
    head = evidence.blocks[-1]
    paths = [p for p in trees.flatten(evidence.params) if RIDING.fullmatch(p)]
    below = [path for path in paths if path.split("/")[0] != head]
    riding = masks.fill(evidence.params, dict.fromkeys(below, np.True_))
    return masks.intersect(riding, masks.invert(mask))
