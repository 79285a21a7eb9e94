"""SIFT: of every array the elements with the largest gradient of the first batch.

Source: Song et al., "Sparse is Enough in Fine-tuning Pre-trained Large Language
Models", arXiv:2312.11875, and its released code. The paper takes of each matrix the
elements with the largest absolute gradient, found as training begins; its README
speaks of the first few batches, its code keeps the indices of the first one. For GLUE
the scripts take 0.8 % of the queries, keys, values and attention outputs, kernels and
biases, and train the classifier whole. Here that is
`among=r".*/attn/(query|key|value|out)/(kernel|bias)"` of a ViT; the default is all
kernels, so that networks without attention have one too.

The code takes one element more than its share rounded down, we round the share to the
nearest. It throws the first gradient away once it has chosen by it, and so do we.
"""

from typing import Any

from subtune_jax import scores
from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

TINY: dict[str, Any] = {}


def make(
    fraction: float = 0.008, batches: int = 1, among: str = r".*kernel"
) -> Selector:
    """Trains the elements with the largest absolute gradient, ties to the first.

    Args:
      fraction: share of each array in [0, 1]; at least one element unless it is 0.
      batches: 1 or more; the gradient is that of all of them together.
      among: regular expression over whole paths: the arrays that are chosen from.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if batches < 1:
        raise ValueError(f"sift batches={batches}; it must be 1 or more")

    def init(evidence: Evidence) -> Selection:
        below = masks.find(evidence.params, among, evidence.blocks[-1:])
        seen = evidence.batches(batches)
        sums = scores.gradient(evidence.loss_fn, evidence.params, seen, "abs_of_sum")
        chosen = choose.top_per_array(trees.pick(sums, below), fraction)
        return Selection(masks.fill(evidence.params, chosen))

    return Selector(init)
