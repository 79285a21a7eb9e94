"""TAPS: every layer learns whether it changes at all.

Source: Wallingford et al., "Task Adaptive Parameter Sharing for Multi-Task Learning",
arXiv:2203.16708, and its released code (MattWallingford/TAPS, `models/taps_net.py`,
`train_sequential.py`). Layer l is used as `w0 + I(s >= threshold) * delta`, with a
trained difference delta, zero to begin with, and one trained score s; the loss has
`penalty * mean(abs(s))` over all layers. The indicator's derivative is taken to be one:
s gets the product of delta and the weight's gradient. An inactive layer's delta gets no
gradient, its score does, so that it can come back. Threshold 0.1, scores that start at
0.15 and a penalty of 1 are the code's defaults. So is training all norms.

The code gates convolution kernels, which have no bias; here a bias is gated with the
kernel beside it. It adds the penalty after three passes through the data:
`warmup_steps`. It trains by SGD, at a rate of 0.01. Adam divides the penalty's gradient
by its own size: while the deltas are small, all scores fall by the learning rate in
every step, however small the penalty is. With decay, deltas shrink, not weights, if
`optimizer.decay` names them: `.*kernel[+]delta`.

Which layers are active in the end is not known before: all deltas and scores count as
selected. A layer that is inactive then is shipped with the base's bits.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Additive,
    Evidence,
    Probe,
    Selection,
    Selector,
    masks,
    reach,
    trees,
)

TINY: dict[str, Any] = {}
NORMS = r".*norm[^/]*/(scale|bias)"


def make(
    penalty: float = 1.0,
    threshold: float = 0.1,
    start: float = 0.15,
    warmup_steps: int = 0,
    among: str = r".*kernel",
    extras: str | None = NORMS,
) -> Selector:
    """Trains a difference and a score of every layer, and the norms.

    Args:
      penalty: factor of the mean absolute score in the loss, 0 or more.
      threshold: score from which on a layer changes.
      start: score that every layer starts from, at least `threshold`: below it all
        layers would be inactive, with differences of zero that no gradient moves.
      warmup_steps: number of steps that come before the penalty sets in, 0 or more.
      among: regular expression over whole paths: the layers' kernels.
      extras: regular expression over whole paths: what is trained besides, without a
        score; counted apart. None for nothing.

    Raises:
      ValueError: a number out of its range; in `init`, a pattern matches nothing, or
        `among` a vector.
    """
    if penalty < 0 or warmup_steps < 0 or start < threshold:
        numbers = f"taps {penalty=}, {warmup_steps=}, {start=}, {threshold=}"
        ranges = "they must be 0 or more, 0 or more, and start at least threshold"
        raise ValueError(f"{numbers}; {ranges}")

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        flat, values = trees.leaves(params), {}
        kernels = reach.below(evidence, among)
        reach.check_matrices(kernels)
        for path in kernels:
            values[f"{path}+score"] = np.array(start, np.float32)
            for leaf in _layer(path, flat):
                values[f"{leaf}+delta"] = np.zeros(np.shape(flat[leaf]), np.float32)
        paths = tuple(n.split("+")[0] for n in values if n.endswith("+delta"))
        merge = functools.partial(_merge, threshold)
        whole = masks.fill(params, dict.fromkeys(paths, np.True_))
        riding = masks.besides(params, whole, extras, head)
        nothing = masks.fill(params, {})
        return Selection(nothing, riding, additive=Additive(values, merge, paths))

    def on_scores(probe: Probe) -> jax.Array:
        scores = [v for name, v in probe.values.items() if name.endswith("+score")]
        if not scores:  # while the head alone is trained
            return jnp.zeros(())
        mean = jnp.mean(jnp.abs(jnp.stack(scores)))
        return jnp.where(probe.step >= warmup_steps, penalty * mean, 0.0)

    return Selector(init, penalty=on_scores)


def _layer(path: str, known: Mapping[str, Any]) -> list[str]:
    """The kernel at `path`, and the bias beside it if there is one."""
    bias = "/".join([*path.split("/")[:-1], "bias"])
    return [path, bias] if bias in known else [path]


def _merge(
    threshold: float, leaves: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    merged = {}
    for name, score in values.items():
        path, what = name.split("+")
        if what == "score":
            for leaf in _layer(path, leaves):
                delta = values[f"{leaf}+delta"]
                merged[leaf] = _gated(threshold, leaves[leaf], delta, score)
    return merged


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gated(threshold: float, base: Any, delta: Any, score: Any) -> jax.Array:
    # A choice and no product: what is inactive keeps every bit, signs of zeros too.
    return jnp.where(score >= threshold, base + delta, base)


@_gated.defjvp
def _straight_through(threshold, primals, tangents):
    _, delta, score = primals
    on_base, on_delta, on_score = tangents
    moved = jnp.where(score >= threshold, on_delta, 0.0)
    out = _gated(threshold, *primals)
    return out, (on_base + moved + on_score * delta).astype(out.dtype)
