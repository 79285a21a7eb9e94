"""The repeated blocks, all of them, and neither end: not full fine-tuning.

What SubTuning's released code (talswisa/SubTuning, `src/models.py`) trains under the
name of fine-tuning: it unfreezes the listed blocks, so that the stem of a ResNet, and
the patch, class and position embeddings and the last norm of a ViT, stay as they were.
`full` is the row that trains everything.
"""

from typing import Any

from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import masks

REPEATED = r"(block|layer|hidden)\d[^/]*"  # names of the blocks that a network repeats
TINY: dict[str, Any] = {}


def make(pattern: str = REPEATED) -> Selector:
    """Trains the blocks whose names `pattern` matches in full.

    Raises:
      ValueError: in `init`, it matches no block.
    """

    def init(evidence: Evidence) -> Selection:
        head = evidence.blocks[-1:]
        whole = f"(?:{pattern})/.*"
        return Selection(masks.from_regex(evidence.params, whole, skip=head))

    return Selector(init)
