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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from subtune_jax import (
    Evidence,
    Selector,
    check_choice,
    choose,
    losses,
    reach,
    score_then_choose,
    scores,
    trees,
)

TINY: dict[str, Any] = {"loss": "task"}
LOG = logging.getLogger(__name__)
LOSSES = ("contrastive", "task")


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
      k: number of inputs of each neuron, from 1 to the fan-in of each array.
      loss: the loss that is differentiated: `"contrastive"`, or the `"task"`'s own.
      batches: number of batches whose gradients are summed, 0 or more; 0 for one pass
        through the training examples.
      until: share in [0, 1]: scoring stops early once two choices, a tenth of the
        batches apart, overlap by it; the log says after how many batches. 0 for never.
      temperature: divides the similarities in the contrastive loss, above 0.
      biases: whether all biases but those of norms, and LayerScale, are trained
        besides; counted apart. Some networks have none.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.
      neuron_axes: leaf path -> its output axes, such as `{"query/kernel": (1, 2)}`;
        None for the last axis of every array.

    Raises:
      ValueError: an unknown loss, or a number out of its range; in `init`, `among`
        matches nothing, or `k` is more than a fan-in.
    """
    check_choice("gps loss", loss, LOSSES)
    if batches < 0 or temperature <= 0 or not 0 <= until <= 1:
        numbers = f"{batches=}, {temperature=}, {until=}"
        ranges = "they must be 0 or more, above 0, and in [0, 1]"
        raise ValueError(f"gps {numbers}; {ranges}")

    def best(gradients: dict[str, Any]) -> Any:
        return choose.top_per_neuron(gradients, k, neuron_axes)

    def score(evidence: Evidence, leaves: dict[str, Any]) -> Any:
        count = batches or evidence.epoch_batches
        shown, loss_fn = evidence.batches(count), evidence.loss_fn
        if loss == "contrastive":
            shown, loss_fn = _contrast(evidence, count, temperature)
        arguments = loss_fn, evidence.params, shown, "abs_of_sum"
        if not until:
            return scores.gradient(*arguments)
        rule = scores.Until(
            until, max(1, count // 10), lambda tree: best(trees.pick(tree, leaves))
        )
        gathered = scores.until_stable(*arguments, rule)
        LOG.info("gps used %d of %d batches", gathered.used_batches, count)
        return gathered.scores

    return score_then_choose(score, best, among, reach.biases if biases else None)


def _contrast(
    evidence: Evidence, count: int, temperature: float
) -> tuple[Iterable[Any], Callable[[Any, Any], jax.Array]]:
    """Batches of two views of every image, and the contrastive loss of one of them."""
    features, views = evidence.features, evidence.views
    if features is None or views is None:
        missing = "evidence without features and views"
        raise ValueError(f"gps was given {missing}; loss='task' needs neither")

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        return losses.contrastive(features(params, batch), batch["labels"], temperature)

    return views(count), loss_fn
