"""LNSR: full fine-tuning of a network that is to be stable under noise inside.

Source: Hua et al., "Noise Stability Regularization for Improving BERT Fine-tuning",
arXiv:2107.04835; no code of it was found. Gaussian noise e is added to what enters
one layer; the loss has `weight * sum over the layers above of |f(x + e) - f(x)|**2`,
where f is what leaves the layer, and the norm is over all tokens and units.

Here, as the last of f we take what enters the head, behind the last norm or pooler;
the penalty is of evaluation mode, with no dropout, and the mean over examples. Padding
gets no noise. The second pass through the network, of the noisy input, costs another
forward and backward; the first is shared with the loss unless that drops units or
updates batch statistics. The defaults of `weight` and `deviation` are ours.
"""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax import (
    HEAD,
    Evidence,
    Params,
    Probe,
    Selection,
    Selector,
    masks,
    near,
    reach,
)

TINY: dict[str, Any] = {}


def make(
    weight: float = 1e-4,
    deviation: float = 0.05,
    block: str | None = None,
    pattern: str = reach.REPEATED,
) -> Selector:
    """Trains everything, and penalises what noise does above `block`.

    Args:
      weight: weight of the penalty in the loss, 0 or more.
      deviation: standard deviation of the noise, 0 or more.
      block: name of the block whose input gets the noise, one that `pattern` names;
        None for the first of them.
      pattern: regular expression over whole block names: the layers, in the order of
        their numbers.

    Raises:
      ValueError: a number out of its range; in `init`, `pattern` matches nothing, or
        `block` is none of its blocks.
    """
    if weight < 0 or deviation < 0:
        raise ValueError(f"lnsr {weight=}, {deviation=}; both must be 0 or more")

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        reach.repeated(evidence, pattern)  # refuses what matches nothing
        known = _layers(params, pattern)
        if block is not None and block not in known:
            raise ValueError(f"lnsr has no layer {block!r}; {near(block, known)}")
        return Selection(masks.from_regex(params, ".*", skip=head))

    def penalty(probe: Probe) -> jax.Array:
        if probe.start == HEAD:  # linear probing: nothing below the head moves
            return jnp.zeros(())
        layers = _layers(probe.params, pattern)
        layers = layers[layers.index(block or layers[0]) :]
        clean = probe.apply(probe.params, probe.x, probe.start, layers[0])
        noise = jax.random.normal(probe.key, clean.shape, clean.dtype)
        real = jnp.any(clean != 0, -1, keepdims=True)  # rows of padding stay zeros
        noisy = clean + deviation * noise * real
        total = jnp.zeros(len(clean))
        for here, above in itertools.pairwise([*layers, HEAD]):
            clean, noisy = (
                probe.apply(probe.params, x, here, above) for x in (clean, noisy)
            )
            apart = (noisy - clean).astype(jnp.float32).reshape(len(clean), -1)
            total += jnp.sum(jnp.square(apart), -1)
        rows = jnp.maximum(jnp.sum(probe.weight), 1)
        return weight * jnp.sum(probe.weight * total) / rows

    return Selector(init, penalty=penalty)


def _layers(params: Params, pattern: str) -> list[str]:
    """The blocks of `pattern`, those with lower numbers first."""

    def numbers(name: str) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", name)]

    layers = [b for b in params if b != HEAD and re.fullmatch(pattern, b)]
    return sorted(layers, key=numbers)
