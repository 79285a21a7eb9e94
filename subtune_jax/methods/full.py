"""Full fine-tuning: the whole base, with stem, embeddings and norms.

The row that every other method is compared with. SubTuning's released code calls
something smaller by this name: it trains the listed blocks only, so that the stem of
a ResNet and the patch, class and position embeddings and the last norm of a ViT stay
frozen. Here nothing does.
"""

from typing import Any

from subtune_jax import Evidence, Selection, Selector, masks

TINY: dict[str, Any] = {}


def make() -> Selector:
    """Trains everything."""

    def init(evidence: Evidence) -> Selection:
        head = evidence.blocks[-1:]
        return Selection(masks.from_regex(evidence.params, ".*", skip=head))

    return Selector(init)
