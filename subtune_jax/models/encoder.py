"""Blocks of text encoders: post-norm transformers on tokens (`backbones/bert.py`).

Between blocks x is `[B, L, D]`, and rows of padding are zeros: a block finds there what
its attention must not read. A real row never is zeros, for a norm ends every block;
only dropping all D units of a token makes it padding, once in `dropout ** -D` tokens.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from subtune_jax.models import attention, layers
from subtune_jax.models.layers import Mode
from subtune_jax.models.weights.bert_files import Config

NORMAL = nnx.initializers.normal(0.02)  # as BERT, RoBERTa and ELECTRA start


class Embed(nnx.Module):
    """Words, positions and types of tokens: int32 `[B, L, 2]` -> `[B, L, D]`.

    x is as `Backbone.encode` gives it. The output has the type of the parameters.
    """

    def __init__(self, config: Config, dropout: float, rngs: nnx.Rngs):
        """Three tables `[rows, E]`; `project` where E is not D, as in ELECTRA."""
        size = config.embedding

        def table(rows: int) -> nnx.Param:
            return nnx.Param(NORMAL(rngs.params(), (rows, size)))

        self.word = table(config.vocabulary)
        self.position = table(config.positions)
        self.type = table(config.types)
        self.norm = layers.LayerNorm(size, epsilon=config.epsilon)
        same = size == config.width
        self.project = None if same else _dense(size, config.width, rngs)
        self.first, self.dropout = config.first, dropout

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Padding has no row in any table: what is read for it is put to zero."""
        numbers, which = x[..., 0], x[..., 1]
        rows = jnp.asarray(self.word[...]).at[numbers].get(mode="clip")
        rows += self.position[...][self.first : self.first + x.shape[1]]
        # RoBERTa has one type for both texts.
        rows += jnp.asarray(self.type[...]).at[which - 1].get(mode="clip")
        rows = layers.dropout(self.norm(rows), self.dropout, mode.key, 0)
        rows = rows if self.project is None else self.project(rows)
        return jnp.where(which[..., None] > 0, rows, 0)


class Block(nnx.Module):
    """Attention, then an MLP, each added to its input: `[B, L, D]` -> the same."""

    def __init__(
        self, config: Config, dropout: float, attention_dropout: float, rngs: nnx.Rngs
    ):
        """A layer norm follows each sum: post-norm."""
        width, epsilon = config.width, config.epsilon
        self.attn = attention.Attention(
            width,
            config.heads,
            rngs=rngs,
            kernel_init=NORMAL,
            dropout=attention_dropout,
        )
        self.norm1 = layers.LayerNorm(width, epsilon=epsilon)
        self.fc1 = _dense(width, config.hidden, rngs)
        self.fc2 = _dense(config.hidden, width, rngs)
        self.norm2 = layers.LayerNorm(width, epsilon=epsilon)
        self.dropout = dropout

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """One block; draws 0 are of the attention's weights."""
        drop = functools.partial(layers.dropout, rate=self.dropout, key=mode.key)
        real = _real(x)
        x = self.norm1(x + drop(self.attn(x, real, mode.key), place=1))
        hidden = attention.gelu(self.fc1(x))
        x = self.norm2(x + drop(self.fc2(hidden), place=2))
        return jnp.where(real[..., None], x, 0)


class Pool(nnx.Module):
    """The first token, or the mean of all: `[B, L, D]` -> `[B, D]`; no parameters."""

    def __init__(self, mean: bool, rngs: nnx.Rngs):
        """`mean`: of the real tokens; a text of none, as a batch's padding, has 0."""
        self.mean = mean

    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Tokens end here."""
        if not self.mean:
            return x[:, 0]
        count = jnp.maximum(_real(x).sum(-1, keepdims=True), 1)
        return (x.sum(1, dtype=jnp.float32) / count).astype(x.dtype)


class Pooler(layers.Dense):
    """The first token through a dense layer: `[B, L, D]` -> `[B, D]`.

    BERT's was pretrained, ends in tanh, and units are dropped after it, by the head.
    Those of RoBERTa and ELECTRA are the first half of the new classifier: they drop
    units before it too, and ELECTRA's ends in GELU.
    """

    def __init__(self, config: Config, dropout: float, rngs: nnx.Rngs):
        """`kernel` `[D, D]`."""
        super().__init__(config.width, config.width, rngs=rngs, kernel_init=NORMAL)
        self.act = attention.gelu if config.kind == "electra" else jnp.tanh
        self.dropout = 0.0 if config.kind == "bert" else dropout

    def __call__(self, x: jax.Array, mode: Mode | None = None) -> jax.Array:
        """Other tokens end here."""
        key = None if mode is None else mode.key
        return self.act(super().__call__(layers.dropout(x[:, 0], self.dropout, key, 0)))


def _dense(inputs: int, outputs: int, rngs: nnx.Rngs) -> layers.Dense:
    return layers.Dense(inputs, outputs, rngs=rngs, kernel_init=NORMAL)


def _real(x: jax.Array) -> jax.Array:
    """Which rows are no padding: `[B, L, D]` -> booleans `[B, L]`."""
    return jnp.any(x != 0, -1)
