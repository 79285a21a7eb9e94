"""SSF: a scale and a shift of every channel after every operation.

Source: Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient
Model Tuning", arXiv:2210.08823, and its released code (dongzelian/SSF). Whatever leaves
a dense layer, a convolution or a norm is used as `y * gamma + beta`, which merges into
the operation: columns of its kernel or its scale times gamma, its bias times gamma plus
beta. As in the code gamma starts at N(1, 0.02**2) and beta at N(0, 0.02**2): training
starts near the base, not at it. Class token, position table and LayerScale are no
operations, there as here; the code draws one pair for query, key and value together,
which is the same.

An operation without a bias has nothing that a shift merges into: it gets gamma alone.
In the networks here that is a layer before a batch norm, whose own shift can do as
much. `optimizer.decay` names kernels and so neither gamma nor beta; it would pull gamma
to zero, not to one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subtune_jax import Additive, Evidence, Selection, Selector, masks, reach, trees

TINY: dict[str, Any] = {}
SPREAD = 0.02  # standard deviation of the values to start from
SLOPES = r"(.*/)?(kernel|scale)"  # what an operation multiplies by


def make(among: str = r".*") -> Selector:
    """Trains one scale for each output of an operation, and one shift if it has a bias.

    Args:
      among: regular expression over whole paths of kernels and of norms' scales: the
        operations that get a scale and a shift.

    Raises:
      ValueError: in `init`, it matches none of them.
    """

    def init(evidence: Evidence) -> Selection:
        params, operations = evidence.params, reach.below(evidence, SLOPES)
        slopes = masks.find(trees.nest(operations), among)
        biases = trees.leaves(params).keys() & map(_bias, slopes)
        values, rng = {}, np.random.default_rng(evidence.seed)
        for path, slope in slopes.items():
            size, bias = np.shape(slope)[-1], _bias(path)
            values[f"{path}+gamma"] = rng.normal(1, SPREAD, size).astype(np.float32)
            if bias in biases:
                values[f"{bias}+beta"] = rng.normal(0, SPREAD, size).astype(np.float32)
        added = Additive(values, _merge, (*slopes, *sorted(biases)))
        return Selection(masks.fill(params, {}), additive=added)

    return Selector(init)


def _merge(leaves: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = {}
    for name, array in values.items():
        path, what = name.split("+")
        if what == "gamma":
            merged[path] = leaves[path] * array
            if f"{_bias(path)}+beta" in values:
                bias = _bias(path)
                merged[bias] = leaves[bias] * array + values[f"{bias}+beta"]
    return merged


def _bias(path: str) -> str:
    """The bias of the operation whose kernel or scale is at `path`."""
    return "/".join([*path.split("/")[:-1], "bias"])
