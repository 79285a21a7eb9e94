"""Weights of vision transformers: a file of any layout in our own names."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.models.weights import position_tables, vit_layouts, weight_files
from subtune_jax.models.weights.vit_layouts import Layout

_PATCHES = "embeddings.position_embeddings.patches"
_CLASS = "embeddings.position_embeddings.class"


def read_layout(path: Path) -> Layout:
    """The layout of the file `path`; errors as in `weight_files.read` and `detect`."""
    return vit_layouts.detect(weight_files.read(path), path)


def load(path: Path, shapes: Variables, heads: int) -> Variables:
    """The base in the file `path`, of these shapes.

    Raises:
      ValueError: the file has other entries than these shapes want, see
        `weight_files.fill`.
    """
    arrays = weight_files.read(path)
    layout = vit_layouts.detect(arrays, path)
    leaves = entries(arrays, layout, heads)
    table = leaves.get("embed/position")
    if table is not None:
        tokens = shapes.params["embed"]["position"].shape[0]
        leaves["embed/position"] = position_tables.resample(
            table, tokens, layout.positions
        )
    return weight_files.fill(shapes, leaves, path)


def entries(
    arrays: Mapping[str, np.ndarray], layout: Layout, heads: int
) -> dict[str, np.ndarray]:
    """The arrays by our paths; what no rename knows keeps a name that will not fit.

    Raises:
      ValueError: two arrays have the same path.
    """
    renamed: dict[str, np.ndarray] = {}
    for name, array in _plain(arrays).items():
        if re.fullmatch(layout.ignored, name):
            continue
        for pattern, replacement in layout.renames:
            name = re.sub(pattern, replacement, name)
        for path, part in _parts(name, array, heads).items():
            if path in renamed:
                raise ValueError(f"two arrays are {path}: {name} comes twice")
            renamed[path] = part
    return renamed


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with dotted names, without what libraries wrap around a network."""
    if any(name.startswith("params/") for name in arrays):  # beside an optimiser's
        inside = (name for name in arrays if name.startswith("params/"))
        arrays = {name.removeprefix("params/"): arrays[name] for name in inside}
    plain = {}
    for name, array in arrays.items():
        # The graph of an ONNX file: the weights of a product go by its node.
        name = re.sub(r"^/(.*)/MatMul$", r"\1/kernel", name)
        name = re.sub(r"^/backbone/embeddings/Reshape(_\d+)?$", _PATCHES, name)
        name = re.sub(r"^/backbone/embeddings/Concat(_\d+)?$", _CLASS, name)
        name = re.sub(r"^(vit|dinov2|backbone)[./]", "", name)
        plain[name.replace("/", ".")] = array
    if _PATCHES in plain and _CLASS in plain:
        halves = [plain.pop(_CLASS), plain.pop(_PATCHES)]
        plain["embeddings.position_embeddings"] = np.concatenate(halves, axis=1)
    return plain


def _parts(name: str, array: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """`array` in our layout: output neurons last, and three products for one `qkv`."""
    owner, _, kind = name.rpartition(".")
    if kind == "weight":  # PyTorch's, output neurons first
        kind = {1: "scale"}.get(array.ndim, "kernel")
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    elif owner == "embed" and kind in ("token", "position"):
        array = array.reshape(array.shape[1:] if kind == "position" else -1)
    else:
        array = _merge_heads(owner, kind, array, heads)
    if not owner.endswith(".qkv"):
        return {_path(owner, kind): array}
    names = [owner.removesuffix("qkv") + part for part in ("query", "key", "value")]
    thirds = np.split(array, 3, axis=-1)
    return {_path(name, kind): third for name, third in zip(names, thirds, strict=True)}


def _merge_heads(owner: str, kind: str, array: np.ndarray, heads: int) -> np.ndarray:
    """Flax's `[D, heads, D / heads]`, or `[heads, D / heads, D]`, as `[D, D]`."""
    if re.search(r"\.attn\.(query|key|value)$", owner):
        axis = array.ndim - 2
        many = array.ndim == {"kernel": 3, "bias": 2}.get(kind)
    elif re.search(r"\.attn\.out$", owner):
        axis = 0
        many = array.ndim == 3
    else:
        return array
    # With another number of heads it stays as it is, which then does not fit.
    if not many or array.shape[axis] != heads:
        return array
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


def _path(owner: str, kind: str) -> str:
    """`block0.fc1`, `kernel` -> `block01/fc1/kernel`."""
    owner = re.sub(r"^block(\d+)", lambda m: f"block{int(m[1]) + 1:02d}", owner)
    return "/".join(part for part in (*owner.split("."), kind) if part)
