"""L2-SP: full fine-tuning with weights that are pulled to where they started.

Source: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", arXiv:1802.01483, and its released code (holyseven/
TransferLearningClassification). The loss has
`alpha / 2 |w - w0|**2 + beta / 2 |head|**2`, over the weights of linear and convolution
layers, no biases and no norms. Its script has alpha 0.1 and beta 0.01, with SGD of
momentum 0.9, where this is a decay.

It replaces weight decay: leave `optimizer.weight_decay` at 0, which pulls to zero.
Under Adam a penalty in the loss is divided by the size of the gradient along with it
and weakens; Zhang et al. (arXiv:2006.05987) pull by the learning rate instead.

Beside w there is a second copy of each penalised array on the devices, w0 in float32.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import HEAD, Evidence, Probe, Selection, Selector, masks, reach

TINY: dict[str, Any] = {}


def make(alpha: float = 0.1, beta: float = 0.01, among: str = r".*kernel") -> Selector:
    """Trains everything, with a penalty on the distance from the base.

    The memory: path -> w0.

    Args:
      alpha: weight of the squared distance from the base in the loss, 0 or more.
      beta: weight of the squared norm of the head in the loss, 0 or more.
      among: regular expression over whole paths: the arrays that are penalised, of the
        head too.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing below
        the head.
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"l2_sp {alpha=}, {beta=}; both must be 0 or more")

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        below = reach.below(evidence, among)
        base = {path: np.array(leaf, np.float32) for path, leaf in below.items()}
        return Selection(masks.from_regex(params, ".*", head), memory=base)

    def penalty(probe: Probe) -> jax.Array:
        # While the head alone is trained, what is below it has no values.
        moving = probe.memory.keys() & probe.values.keys()
        apart = [probe.values[path] - probe.memory[path] for path in sorted(moving)]
        head = [
            value
            for path, value in probe.values.items()
            if path.startswith(f"{HEAD}/") and re.fullmatch(among, path)
        ]
        return alpha / 2 * _square(apart) + beta / 2 * _square(head)

    return Selector(init, penalty=penalty)


def _square(arrays: list[jax.Array]) -> jax.Array:
    return sum((jnp.sum(jnp.square(array)) for array in arrays), jnp.zeros(()))
