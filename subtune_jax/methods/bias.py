"""BitFit: every bias of the base.

Source: Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient
Fine-tuning for Transformer-based Masked Language-models", arXiv:2106.10199. The
released code finds biases by name, those of layer norms and embeddings included, and
can be told to train fewer kinds; it trains the classifier, and the pooler's bias.
GPS's "all biases" leaves those of norms out. A network whose convolutions feed batch
norms has biases in its norms alone.
"""

from typing import Any

from subtune_jax import Evidence, Selection, Selector, masks

TINY: dict[str, Any] = {}


def make(among: str = r"(.*/)?bias") -> Selector:
    """Trains the leaves called `bias`.

    Args:
      among: regular expression over whole paths: the leaves that are trained.

    Raises:
      ValueError: in `init`, nothing matches.
    """

    def init(evidence: Evidence) -> Selection:
        head = evidence.blocks[-1:]
        return Selection(masks.from_regex(evidence.params, among, skip=head))

    return Selector(init)
