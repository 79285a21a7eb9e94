"""Weights of BERT, RoBERTa and ELECTRA: folders of Hugging Face in our own names.

A folder holds `config.json` and `model.safetensors`, or the shards that
`model.safetensors.index.json` names, or `pytorch_model.bin`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core import registry
from subtune_jax.core.contracts import Variables
from subtune_jax.models.weights import weight_files

KINDS = ("bert", "roberta", "electra")
INDEX = "model.safetensors.index.json"
PREFIX = re.compile(rf"({'|'.join(KINDS)})\.")
# Beside the encoder: heads of pretraining and of other tasks, tables of no weights.
IGNORED = re.compile(
    r"(cls|lm_head|classifier|qa_outputs|discriminator_predictions|"
    r"generator_predictions|generator_lm_head)\..+|embeddings\.(position|token_type)_ids"
)
RENAMES = (
    (r"embeddings\.word_embeddings", "embed/word"),
    (r"embeddings\.position_embeddings", "embed/position"),
    (r"embeddings\.token_type_embeddings", "embed/type"),
    (r"embeddings\.LayerNorm", "embed/norm"),
    (r"embeddings_project", "embed/project"),
    (r"encoder\.layer\.(\d+)\.(.+)", lambda m: f"block{int(m[1]) + 1:02d}/{m[2]}"),
    (r"(.+/)attention\.self\.(query|key|value)", r"\1attn/\2"),
    (r"(.+/)attention\.output\.dense", r"\1attn/out"),
    (r"(.+/)attention\.output\.LayerNorm", r"\1norm1"),
    (r"(.+/)intermediate\.dense", r"\1fc1"),
    (r"(.+/)output\.dense", r"\1fc2"),
    (r"(.+/)output\.LayerNorm", r"\1norm2"),
    (r"pooler\.dense", "pooler"),
)
TABLES = ("embed/word", "embed/position", "embed/type")
LEAVES = {"gamma": "weight", "beta": "bias"}  # of files made from TensorFlow's


class Config(NamedTuple):
    """What `config.json` says of an encoder.

    Attributes:
      kind: of `KINDS`.
      width: D, between blocks.
      depth: how many blocks.
      heads: of attention; they divide the width.
      hidden: the width inside the MLP.
      vocabulary: rows of the table of words.
      positions: rows of the table of positions.
      types: rows of the table of which text a token is of.
      embedding: the width of the three tables.
      epsilon: of the layer norms.
      first: the row of the first token's position.
    """

    kind: str
    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    types: int
    embedding: int
    epsilon: float
    first: int


def read_config(folder: Path) -> Config:
    """The `Config` in `folder`.

    Raises:
      ValueError: no such file, not JSON, an entry that is missing or not such a number,
        or a network that this one is not.
    """
    path = folder / "config.json"
    entries = _json(path)
    kind = _kind(entries, path)

    def count(key: str, silent: int | None = None, least: int = 1) -> int:
        value = entries.get(key, silent)
        if type(value) is not int or value < least:
            raise ValueError(f"{path}: {key} is {value!r}; there are {least}, ...")
        return value

    epsilon = entries.get("layer_norm_eps", 1e-12)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        what = f"layer_norm_eps is {epsilon!r}"
        raise ValueError(f"{path}: {what}; there are numbers in (0, 1)")
    width, heads = count("hidden_size"), count("num_attention_heads")
    if width % heads:
        what = f"hidden_size {width} is not divisible"
        raise ValueError(f"{path}: {what} by num_attention_heads {heads}")
    return Config(
        kind=kind,
        width=width,
        depth=count("num_hidden_layers"),
        heads=heads,
        hidden=count("intermediate_size"),
        vocabulary=count("vocab_size"),
        positions=count("max_position_embeddings"),
        types=count("type_vocab_size", 2),
        embedding=count("embedding_size", 128) if kind == "electra" else width,
        epsilon=float(epsilon),
        # RoBERTa's tables keep the rows up to that of padding for no position.
        first=count("pad_token_id", 1, least=0) + 1 if kind == "roberta" else 0,
    )


def _kind(entries: Mapping[str, Any], path: Path) -> str:
    """Which of `KINDS` the network is, if it is one that we compute."""
    kind = entries.get("model_type")
    if kind not in KINDS:
        near = registry.near(str(kind), KINDS)
        raise ValueError(f"{path}: no model_type named {kind!r}; {near}")
    # Where a file is silent it means what transformers takes.
    for key, known in (
        ("hidden_act", ("gelu", "gelu_python")),
        ("position_embedding_type", ("absolute",)),
        ("is_decoder", (False,)),
    ):
        if entries.get(key, known[0]) not in known:
            raise ValueError(
                f"{path}: {key} is {entries[key]!r}; there is {known[0]!r}"
            )
    return kind


def load(
    folder: Path, shapes: Variables, new: Mapping[str, np.ndarray] | None = None
) -> Variables:
    """The base in `folder`.

    Args:
      folder: with the files above.
      shapes: of the base. A pooler in the file is read if they have one.
      new: path -> array of what starts anew, whatever the file holds of it.

    Raises:
      FileNotFoundError: there is no file of weights.
      ValueError: a file is damaged, or has other entries than these shapes want.
    """
    new = new or {}
    entries = dict(new)
    for name, array in _arrays(folder).items():
        plain = PREFIX.sub("", name) if PREFIX.match(name) else name
        path, array = _entry(plain, array)
        unused = path.startswith("pooler/") and "pooler" not in shapes.params
        if path in new or unused or IGNORED.fullmatch(plain):
            continue
        if path in entries:
            raise ValueError(f"{folder}: two arrays are {path}; one of them is {name}")
        entries[path] = array
    filled = weight_files.fill(shapes, entries, folder)
    # A block without parameters has no entries, and is there all the same.
    params = {block: filled.params.get(block, {}) for block in shapes.params}
    return Variables(params, filled.stats)


def _entry(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """The path and the array as we have them; `fill` refuses what no rename knows."""
    owner, _, leaf = name.rpartition(".")
    for pattern, replacement in RENAMES:
        owner = re.sub(f"^{pattern}$", replacement, owner)
    leaf = LEAVES.get(leaf, leaf)
    if leaf == "weight" and owner in TABLES:
        return owner, array
    if leaf == "weight":  # [out, in] of a product; [D] of a norm
        leaf, array = "kernel" if array.ndim == 2 else "scale", array.T
    return f"{owner}/{leaf}", array


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    index = folder / INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return weight_files.read(folder)
    parts = _json(index).get("weight_map")
    files = list(parts.values()) if isinstance(parts, dict) else [None]
    for file in files:
        # Nothing outside the folder is read.
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise ValueError(f"{index} names {file!r}; there are files beside it")
    read = [weight_files.read(folder / file) for file in sorted(set(files))]
    return {name: array for arrays in read for name, array in arrays.items()}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}; there should be one")
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} holds {type(entries).__name__}; there are objects")
    return entries
