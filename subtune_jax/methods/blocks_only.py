"""The repeated blocks, all of them, and neither end: not full fine-tuning.

What SubTuning's released code (talswisa/SubTuning, `src/models.py`) trains under the
name of fine-tuning: it unfreezes the listed blocks, so that the stem of a ResNet, and
the patch, class and position embeddings and the last norm of a ViT, stay as they were.
`full` is the row that trains everything.
"""

from typing import Any

from subtune_jax import reach

TINY: dict[str, Any] = {}
PRESET = {"name": "blocks", "pattern": reach.REPEATED}
