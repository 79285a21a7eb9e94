"""The linear probe: nothing of the base, the new head alone.

The cheapest row of a comparison, and the first of every profile. In SubTuning's
released code it has its own learning rate, ten times that of full fine-tuning on
ResNet-50 (1e-2 and 1e-3, AdamW): a probe trained at another method's rate says little.
"""

from typing import Any

from subtune_jax import Evidence, Selection, Selector, masks

TINY: dict[str, Any] = {}


def make() -> Selector:
    """Trains nothing but the head."""

    def init(evidence: Evidence) -> Selection:
        return Selection(masks.fill(evidence.params, {}))

    return Selector(init)
