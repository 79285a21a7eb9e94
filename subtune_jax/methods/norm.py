"""Norm tuning: scale and bias of every normalisation layer of the base.

Source: De Min et al., "On the Effectiveness of LayerNorm Tuning for Continual
Learning in Vision Transformers", arXiv:2308.09610. Its code keeps one set of layer
norms per task and finds the task of an image at test time, and trains the classifier
in a second stage; here there is one task and one stage. For batch norms, a block in
which a norm is trained runs on batch statistics and updates the running ones.
"""

from typing import Any

import numpy as np

from subtune_jax import Evidence, Selection, Selector, masks, reach, trees

TINY: dict[str, Any] = {}


def make() -> Selector:
    """Trains every leaf called `scale`, and the `bias` beside it if there is one.

    By this a network may call nothing else `scale`.

    Raises:
      ValueError: in `init`, the network has no norms.
    """

    def init(evidence: Evidence) -> Selection:
        scales = reach.below(evidence, r"(.*/)?scale")
        biases = {path.removesuffix("scale") + "bias" for path in scales}
        both = (scales.keys() | biases) & trees.leaves(evidence.params).keys()
        return Selection(masks.fill(evidence.params, dict.fromkeys(both, np.True_)))

    return Selector(init)
