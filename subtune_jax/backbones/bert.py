"""BERT, RoBERTa and ELECTRA: post-norm transformers on the tokens of texts.

Source: Devlin et al., "BERT", arXiv:1810.04805; Liu et al., "RoBERTa",
arXiv:1907.11692; Clark et al., "ELECTRA", arXiv:2003.10555; Wang et al., "MiniLM",
arXiv:2002.10957. Each is what transformers' class of that name computes.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx

from subtune_jax import Backbone, Variables, fetch
from subtune_jax.core import registry
from subtune_jax.data import tokenization
from subtune_jax.models import encoder, layers, network
from subtune_jax.models.weights import bert_files
from subtune_jax.models.weights.bert_files import Config

ASSET = "minilm"
POOLINGS = ("mean", "first", "pooler")


class Shape(NamedTuple):
    """What a random network is made of; the first text's type comes first of two."""

    width: int
    depth: int
    heads: int
    hidden: int
    vocabulary: int = 30522
    positions: int = 512


VARIANTS = {
    "minilm-l6": Shape(384, 6, 12, 1536),
    "base": Shape(768, 12, 12, 3072),
    "large": Shape(1024, 24, 16, 4096),
}
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384)
TINY = {"variant": (16, 2, 2, 32, 97, 16), "length": 8}


def make(
    weights: str | None = None,
    variant: str | tuple | None = None,
    length: int = 128,
    lengths: Sequence[int] | None = None,
    pooling: str | None = None,
    seed: int = 0,
    dropout: float = 0.0,
    attention_dropout: float | None = None,
) -> Backbone:
    """A BERT with blocks `embed`, `block01` ..., `pool` or `pooler`, and `head`.

    Args:
      weights: None for random ones; `"minilm"` for the asset; else a folder in the
        layout of Hugging Face: `config.json`, `tokenizer.json`, `model.safetensors`.
      variant: of random weights: a name in `VARIANTS`, `"minilm-l6"` unless given, or
        the numbers of a `Shape`. Their tokenizer hashes words, `tokenization.hashed`.
      length: how many tokens a text, or both of a pair, have at most; special ones
        included.
      lengths: that batches are padded to, below `length`, which is always the last of
        them: each is a program of its own. None for `LENGTHS`, `()` for `length` alone.
      pooling: what of the tokens enters the head: `"mean"` of all; `"first"`; or
        `"pooler"`, the first one through a dense layer, as fine-tuning usually does.
        BERT's layer is in its file; RoBERTa and ELECTRA have none, and theirs starts
        from random weights by `seed`. None for the mean of the asset, which was trained
        by it, and of random weights, and for the pooler of a folder.
      seed: of the random base.
      dropout: the rate in [0, 1) at which units are dropped in training, after the
        embeddings, after attention, after the MLP and before the head. These nets were
        pretrained with 0.1.
      attention_dropout: the rate in [0, 1) for attention's weights; None for that of
        `dropout`.

    Raises:
      ValueError: an unknown name, a number out of range, or files that do not fit.
    """
    pooling = pooling or ("mean" if weights in (None, ASSET) else "pooler")
    registry.check_choice("pooling", pooling, POOLINGS)
    rates = (dropout, dropout if attention_dropout is None else attention_dropout)
    for name, rate in zip(("dropout", "attention_dropout"), rates, strict=True):
        layers.check_rate(name, rate)
    cut = _lengths(LENGTHS if lengths is None else lengths, length)
    folder = None if weights is None else _folder(weights)
    config = _config(folder, variant, length)
    if folder is None:
        load, encode = None, tokenization.hashed(length, config.vocabulary)
    else:
        load = functools.partial(_load, folder, config, pooling, seed)
        encode = tokenization.read(folder / "tokenizer.json", length, config.vocabulary)
    return network.chain(
        "bert",
        _blocks(config, pooling, rates),
        lambda rngs, classes: layers.Head(
            config.width, classes, rngs=rngs, dropout=dropout
        ),
        load,
        seed=seed,
        input_shape=(length, 2),
        normalize=None,
        encode=encode,
        lengths=cut,
        drops=any(rates),
    )


def _blocks(
    config: Config, pooling: str, rates: tuple[float, float]
) -> dict[str, network.Build]:
    blocks: dict[str, network.Build] = {
        "embed": functools.partial(encoder.Embed, config, rates[0])
    }
    for number in range(1, config.depth + 1):
        blocks[f"block{number:02d}"] = functools.partial(encoder.Block, config, *rates)
    if pooling == "pooler":
        return {**blocks, "pooler": functools.partial(encoder.Pooler, config, rates[0])}
    return {**blocks, "pool": functools.partial(encoder.Pool, pooling == "mean")}


def _load(
    folder: Path, config: Config, pooling: str, seed: int, shapes: Variables
) -> Variables:
    return bert_files.load(folder, shapes, _new(config, pooling, seed))


def _new(config: Config, pooling: str, seed: int) -> dict[str, np.ndarray]:
    """The first half of a new classifier, where the pooler is that."""
    if pooling != "pooler" or config.kind == "bert":
        return {}
    pooler = encoder.Pooler(config, 0.0, nnx.Rngs(params=seed))
    leaves = nnx.to_pure_dict(nnx.state(pooler, nnx.Param))
    return {f"pooler/{name}": np.asarray(leaf) for name, leaf in leaves.items()}


def _config(folder: Path | None, variant: str | tuple | None, length: int) -> Config:
    """What the folder or the variant says, with a position for each token."""
    if folder is None:
        config = _random(variant)
    elif variant is None:
        config = bert_files.read_config(folder)
    else:
        what = f"variant={variant!r} beside weights"
        raise ValueError(f"{what}; {folder / 'config.json'} says what they are")
    most = config.positions - config.first
    if length > most:
        raise ValueError(f"length {length}; there are positions for {most} tokens")
    return config


def _random(variant: str | tuple | None) -> Config:
    variant = "minilm-l6" if variant is None else variant
    if isinstance(variant, str):
        registry.check_choice("variant", variant, VARIANTS)
        shape = VARIANTS[variant]
    else:
        shape = Shape(*variant)
    if shape.width % shape.heads:
        raise ValueError(f"width {shape.width} is not divisible by {shape.heads} heads")
    return Config(
        kind="bert",
        types=2,
        embedding=shape.width,
        epsilon=1e-12,
        first=0,
        **shape._asdict(),
    )


def _lengths(lengths: Sequence[int], length: int) -> tuple[int, ...]:
    """Those below `length`, ascending, and `length`."""
    if any(not 0 < each for each in lengths):
        raise ValueError(f"lengths {tuple(lengths)}; each must be 1 or more")
    return (*sorted({each for each in lengths if each < length}), length)


def _folder(weights: str) -> Path:
    return fetch.path(weights) if weights == ASSET else Path(weights)
