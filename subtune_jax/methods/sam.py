"""SAM: of every array the elements with the largest accumulated gradient.

Not the segmentation network, nor sharpness-aware minimisation: the "Second-order
Approximation Method" of Fu et al., "On the Effectiveness of Parameter-Efficient
Fine-Tuning", arXiv:2211.15583. The paper tunes the elements by which a second-order
model of the loss falls most; with the same curvature everywhere these are the largest
squared gradients. Its code (fuzihaofzh/AnalyzeParameterEfficientFinetune,
`src/runner.py`) adds up the signed gradients of 599 batches without a step, takes the
largest absolute sums of each array, half a percent, and trains the classifier whole.
It does so for every array of the pretrained network, which it calls the encoder:
embeddings, biases and norms included, as we do.

The code clips the gradient of each batch by its norm over the whole network before it
adds it up; we do not. It rounds a share down, so that its small arrays get nothing;
ours get one element. Its network is in training mode while it adds up, ours in
evaluation mode.
"""

from typing import Any

from subtune_jax import Evidence, Selector, choose, score_then_choose, scores

TINY: dict[str, Any] = {"batches": 2}


def make(fraction: float = 0.005, batches: int = 599, among: str = r".*") -> Selector:
    """Trains the elements with the largest `abs(sum of gradients)`, ties to the first.

    Args:
      fraction: share in [0, 1] of each array, one element at least unless it is 0.
      batches: number of batches whose gradients are summed, 0 or more, in as many
        passes through the training examples as it takes; 0 for one pass.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if batches < 0:
        raise ValueError(f"{batches=}; it must be 0 or more")

    def score(evidence: Evidence, leaves: Any) -> Any:
        del leaves  # the gradient of all leaves costs what that of some does
        looked_at = evidence.batches(batches or evidence.epoch_batches)
        return scores.gradient(
            evidence.loss_fn, evidence.params, looked_at, "abs_of_sum"
        )

    return score_then_choose(score, lambda s: choose.top_per_array(s, fraction), among)
