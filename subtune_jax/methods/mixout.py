"""Mixout: full fine-tuning in which random weights are the base's in every step.

Source: Lee et al., "Mixout: Effective Regularization to Finetune Large-scale Pretrained
Language Models", arXiv:1909.11299, and its released code (bloodwass/mixout). A weight w
is used as `(m w + (1 - m) w0 - p w0) / (1 - p)`: w0 is the base's, and the noise m is 0
with probability p and else 1, so that the mean is w. Evaluation uses w. The paper
replaces all weights that leave a neuron together, as dropout does: so does the code,
with one draw for every input of a matrix. One for every weight is its mixconnect.

The code's module mixes weights of linear layers, no biases, norms or embedding tables.
Zhang et al. (arXiv:2006.05987) mix the head as well, towards its random start; here it
is left as it is. They switch all dropout off, as one should here by the network's own
rates. The code's gradient of w is `m g`, without the formula's `1 / (1 - p)`, which we
keep: to Adam nearly the same. The default of p is ours.

Beside w there is a second copy of each mixed array on the devices, w0 in float32.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Evidence,
    Moved,
    Seen,
    Selection,
    Selector,
    check_choice,
    masks,
    reach,
)

TINY: dict[str, Any] = {}
EACH = ("input", "element")
LEVELS = 256  # of a random byte


def make(p: float = 0.9, among: str = r".*kernel", each: str = "input") -> Selector:
    """Trains everything, with weights mixed with the base's.

    The memory: `key`, the state of the random numbers, and `base`, path -> w0.

    Args:
      p: probability in [0, 1) that a weight is the base's in a step, to the nearest
        256th below 1.
      among: regular expression over whole paths: the arrays that are mixed.
      each: what shares a draw: `"input"`, all weights of an input of a kernel `[...,
        in, out]`, of a convolution those of an input channel; `"element"`, each has its
        own.

    Raises:
      ValueError: `p` out of its range, an unknown `each`; in `init`, `among` matches
        nothing, or a vector with draws for inputs.
    """
    check_choice("mixout each", each, EACH)
    if not 0 <= p < 1:
        raise ValueError(f"mixout p={p} is outside [0, 1)")
    dropped = min(int(p * LEVELS + 0.5), LEVELS - 1)
    scale = LEVELS / (LEVELS - dropped)

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        mixed = reach.below(evidence, among)
        if each == "input":
            reach.check_matrices(mixed)
        memory = {
            "key": np.asarray(jax.random.key_data(jax.random.key(evidence.seed))),
            "base": {path: np.array(leaf, np.float32) for path, leaf in mixed.items()},
        }
        return Selection(masks.from_regex(params, ".*", head), memory=memory)

    def view(values: Any, memory: Any) -> dict[str, jax.Array]:
        _, key = jax.random.split(jax.random.wrap_key_data(memory["key"]))
        mixed = {}
        for place, (path, base) in enumerate(sorted(memory["base"].items())):
            shape = base.shape if each == "element" else (base.shape[-2], 1)
            kept = _bytes(jax.random.fold_in(key, place), shape) >= dropped
            # The formula, with both w0 that cancel left out: exact where m is 0.
            change = (values[path] - base) * jnp.where(kept, scale, 0.0)
            mixed[path] = base + change
        return mixed

    def update(seen: Seen, selection: Selection) -> Moved:
        del seen
        key = jax.random.wrap_key_data(selection.memory["key"])
        following, _ = jax.random.split(key)
        memory = {**selection.memory, "key": jax.random.key_data(following)}
        return Moved(selection._replace(memory=memory))

    return Selector(init, update, view=view)


def _bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform numbers in [0, 256), four of each random word."""
    # `jax.random.bits` makes a whole word for every byte: 11 times the time on a CPU.
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
    parts = [(words >> shift) & (LEVELS - 1) for shift in (0, 8, 16, 24)]
    return jnp.concatenate(parts)[:size].reshape(shape)
