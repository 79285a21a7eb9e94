"""The last blocks below the head: the oldest habit of transfer learning.

What SubTuning's profiles argue against as a rule: by the notes of its reviewers the
best single block of a ResNet-50 is often not the last one (arXiv:2302.06354).
"""

from typing import Any

import jax

from subtune_jax import Evidence, Selection, Selector, masks

TINY: dict[str, Any] = {"count": 1}


def make(count: int = 1) -> Selector:
    """Trains the last `count` blocks of the base.

    A block is what the network lists as one: the final norm of a transformer, or the
    last convolution of an EfficientNet, counts as one where it has its own name. Those
    without parameters do not count.

    Args:
      count: number of blocks, from 1 to that of the base.

    Raises:
      ValueError: in `init`, `count` is not in [1, number of blocks].
    """

    def init(evidence: Evidence) -> Selection:
        own = [b for b in evidence.params if jax.tree.leaves(evidence.params[b])]
        blocks = [block for block in evidence.blocks[:-1] if block in own]
        if count not in range(1, len(blocks) + 1):
            known = ", ".join(blocks)
            raise ValueError(f"count={count} is outside [1, {len(blocks)}]; {known}")
        return Selection(masks.from_blocks(evidence.params, blocks[-count:]))

    return Selector(init)
