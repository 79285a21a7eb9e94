"""Re-init: full fine-tuning whose top blocks start from random values.

Source: Zhang et al., "Revisiting Few-sample BERT Fine-tuning", arXiv:2006.05987, and
its released code (asappresearch/revisit-bert-finetuning, `run_glue.py`). What is
nearest to the pretraining task is a bad place to start from: the pooler and the last
few layers start from random values instead. How many is tuned for each task.

The code draws from a normal distribution of deviation 0.02, with biases of zero and
norms of one; here the network's own initialisation draws. Running statistics of batch
norms, which BERT has none of, stay the base's.
"""

import re
from typing import Any

import jax
import numpy as np

from subtune_jax import Evidence, Selection, Selector, masks, reach, trees

TINY: dict[str, Any] = {}


def make(count: int = 1, pattern: str = reach.REPEATED, above: bool = True) -> Selector:
    """Trains everything, the last `count` repeated blocks from random values.

    Args:
      count: number of repeated blocks, the last ones, that start from random values, 0
        or more.
      pattern: regular expression over whole block names: the repeated blocks.
      above: whether the blocks between the repeated ones and the head start from random
        values too: a pooler, a last norm. Some networks have none.

    Raises:
      ValueError: in `init`, `pattern` matches no block, `count` is not in
        [0, number of blocks], or the evidence has no `init`.
    """

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        if evidence.init is None:
            raise ValueError("reinit was given evidence without init; it draws from it")
        fresh = _fresh(evidence, count, pattern, above)
        # Another stream than that of random bases and heads of the same seed.
        key = jax.random.fold_in(jax.random.key(evidence.seed), 1)
        drawn = trees.leaves(evidence.init(key))
        values = {
            path: np.array(leaf, np.float32)
            for path, leaf in drawn.items()
            if path.split("/")[0] in fresh
        }
        return Selection(masks.from_regex(params, ".*", head), values=values)

    return Selector(init)


def _fresh(
    evidence: Evidence, count: int, pattern: str, above: bool
) -> tuple[str, ...]:
    """The blocks that start from random values."""
    reach.repeated(evidence, pattern)  # refuses what matches nothing
    below = evidence.blocks[:-1]
    layers = [block for block in below if re.fullmatch(pattern, block)]
    if count not in range(len(layers) + 1):
        known = ", ".join(layers)
        raise ValueError(f"reinit count={count} is outside [0, {len(layers)}]; {known}")
    last = below.index(layers[-1])
    last_layers = tuple(layers[len(layers) - count :])
    return last_layers + below[last + 1 :] if above else last_layers
