"""IA3: learned vectors that rescale keys, values and the MLP's hidden units.

Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
In-Context Learning", arXiv:2205.05638, and its released code (r-three/t-few,
`configs/ia3.json`, `src/models/lora.py`). One vector each for keys and values, and one
for the hidden units after the activation; all start at one, so that training starts at
the base. They merge: key and value kernels' columns and biases, and rows of the second
MLP kernel. The code's T5 has no biases, and a gated MLP of which it rescales the factor
without activation, the same function as rescaling the product.

The code's rate is 3e-3, and it decays nothing; nor does `optimizer.decay` here unless
it names these vectors: it would pull them to zero, not to one. The paper's two further
losses, for choosing among answers, are not part of this.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subtune_jax import Additive, Evidence, Selection, Selector, masks, reach, trees

TINY: dict[str, Any] = {"outputs": ".*kernel", "inputs": ".*kernel"}


def make(
    outputs: str | None = r".*(key|value)/kernel",
    inputs: str | None = r".*fc2/kernel",
) -> Selector:
    """Trains one factor for each output, or input, of each of the named kernels.

    The defaults are in networks with attention only. A kernel may be named by both.

    Args:
      outputs: regular expression over whole paths: the kernels whose outputs are
        rescaled, with the biases beside them; None for none.
      inputs: regular expression over whole paths: the kernels whose inputs are
        rescaled; None for none. A convolution has one factor for each of its input
        channels, a depthwise one has one in all.

    Raises:
      ValueError: both are None; in `init`, one matches nothing, or a vector.
    """
    if outputs is None and inputs is None:
        raise ValueError("ia3 outputs=None, inputs=None; one of them is needed")

    def init(evidence: Evidence) -> Selection:
        params, values = evidence.params, {}
        for what, pattern, axis in (("outputs", outputs, -1), ("inputs", inputs, -2)):
            if pattern is None:
                continue
            kernels = reach.below(evidence, pattern)
            reach.check_matrices(kernels)
            for path, kernel in kernels.items():
                values[f"{path}+{what}"] = np.ones(np.shape(kernel)[axis], np.float32)
        named = {name.split("+")[0] for name in values}
        rescaled = [_bias(name) for name in values if name.endswith("+outputs")]
        paths = named | (trees.leaves(params).keys() & set(rescaled))
        added = Additive(values, _merge, tuple(sorted(paths)))
        return Selection(masks.fill(params, {}), additive=added)

    return Selector(init)


def _merge(leaves: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(leaves)
    for name, factors in values.items():
        path, what = name.split("+")
        if what == "inputs":
            merged[path] = merged[path] * factors[:, None]
            continue
        merged[path] = merged[path] * factors
        if _bias(name) in leaves:
            merged[_bias(name)] = leaves[_bias(name)] * factors
    return merged


def _bias(name: str) -> str:
    """The bias beside the kernel that an array is named after."""
    return "/".join([*name.split("/")[:-1], "bias"])
