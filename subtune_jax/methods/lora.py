"""LoRA: a low-rank difference beside each of the named kernels.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
arXiv:2106.09685, and its released code (microsoft/LoRA, `loralib/layers.py`). A kernel
W `[fan_in, out]` is used as `W + alpha / rank * A @ B`, A `[fan_in, rank]`, B
`[rank, out]`, so that training starts at the base. Of attention the paper adapts query
and value, with alpha the first rank that is tried, as here. Its code's script for
RoBERTa base on MNLI has rank 8 and alpha 16.

B starts at zero and A is random: Gaussian in the paper, uniform in the code, which is
that of a torch linear layer. Ours is normal with the variance of the code's,
`1 / (3 fan_in)`. The code may drop inputs of A out; here nothing is dropped. It
factors a convolution in another shape, we as the matrix `[h w in, out]`, as everywhere
here. `optimizer.decay` names kernels and so neither A nor B, which that script decays:
`.*kernel([+][ab])?` has them decay too.

The product is merged in every step, and the gradient of each such kernel is formed
whole before it becomes those of A and B: the optimiser and what devices exchange are
small, the operations of a step are those of training the kernels in full. In bfloat16
the merged kernel is rounded as every weight is; what is shipped is float32.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from subtune_jax import Additive, Evidence, Selection, Selector, masks, reach

TINY: dict[str, Any] = {"rank": 2, "among": ".*kernel"}


def make(
    rank: int = 8, alpha: float = 8.0, among: str = r".*(query|value)/kernel"
) -> Selector:
    """Trains `rank * (fan_in + out)` elements for each kernel, and no kernel.

    Args:
      rank: rank of the difference of each kernel, 1 or more.
      alpha: scale of the differences, above 0: they are multiplied by `alpha / rank`.
      among: regular expression over whole paths: the kernels, arrays of two axes or
        more. The default names some in networks with attention only.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing, or a
        vector.
    """
    if rank < 1 or alpha <= 0:
        raise ValueError(f"lora {rank=}, {alpha=}; they must be 1 or more, and above 0")

    def init(evidence: Evidence) -> Selection:
        kernels = reach.below(evidence, among)
        reach.check_matrices(kernels)
        values, rng = {}, np.random.default_rng(evidence.seed)
        for path, kernel in kernels.items():
            *inputs, outputs = np.shape(kernel)
            size = (math.prod(inputs), rank)
            a = rng.normal(0, (3 * size[0]) ** -0.5, size)
            values[f"{path}+a"] = a.astype(np.float32)
            values[f"{path}+b"] = np.zeros((rank, outputs), np.float32)
        merge = functools.partial(_merge, alpha / rank)
        nothing = masks.fill(evidence.params, {})
        return Selection(nothing, additive=Additive(values, merge, tuple(kernels)))

    return Selector(init)


def _merge(
    scale: float, kernels: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    merged = {}
    for path, kernel in kernels.items():
        change = values[f"{path}+a"] @ values[f"{path}+b"]
        merged[path] = kernel + scale * change.reshape(kernel.shape)
    return merged
