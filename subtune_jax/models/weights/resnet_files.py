"""Weights of ResNets: the state dicts of torchvision and timm in our own names."""

import re
from pathlib import Path

from subtune_jax.core.contracts import Variables
from subtune_jax.models.weights import weight_files

WRAPPER = "module."  # around a network that was trained on several devices
RENAMES = (
    (r"conv1", "stem/conv"),
    (r"bn1", "stem/norm"),
    (r"(layer\d+)\.(\d+)\.(.+)", r"\1_\2/\3"),
    (r"(.+)/bn(\d)", r"\1/norm\2"),
    (r"(.+)/downsample\.0", r"\1/shortcut/conv"),
    (r"(.+)/downsample\.1", r"\1/shortcut/norm"),
)
LEAVES = {"weight": "scale", "running_mean": "mean", "running_var": "var"}


def load(path: str | Path, shapes: Variables) -> Variables:
    """The base in the file `path`, whose classifier is not read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or has other entries than these shapes want.
    """
    arrays = weight_files.read(path)
    wrapped = all(name.startswith(WRAPPER) for name in arrays)
    renamed = {}
    for name, array in arrays.items():
        owner, _, leaf = name[len(WRAPPER) * wrapped :].rpartition(".")
        # A classifier is new for every task; counts of batches have no meaning here.
        if leaf == "num_batches_tracked" or owner == "fc":
            continue
        if array.ndim == 4:  # [out, in, k, k]
            array, leaf = array.transpose(2, 3, 1, 0), "kernel"
        # A name we do not know stays as it is, and `fill` refuses it.
        for pattern, replacement in RENAMES:
            owner = re.sub(f"^{pattern}$", replacement, owner)
        renamed[f"{owner}/{LEAVES.get(leaf, leaf)}"] = array
    return weight_files.fill(shapes, renamed, path)
