"""The BERT, RoBERTa and ELECTRA of `backbones.bert` in PyTorch.

Rows of padding go through it as all others do, as they do in transformers; attention
does not read them, and neither does the mean.
"""

from pathlib import Path
from typing import Any

from subtune_jax import fetch
from subtune_jax.backbones import bert
from subtune_jax.models.weights.bert_files import read_config
from subtune_jax.training.setup import Setup


def logits(setup: Setup, params: dict[str, Any], x: Any) -> Any:
    """Tokens `[B, L, 2]`, see `Backbone.encode` -> `[B, C]`."""
    import torch.nn.functional as F  # noqa: N812

    heads, epsilon, first, kind = _details(setup)
    real = x[..., 1] > 0
    read = real[:, None, None, :]  # by whom, of which head: all the same

    def dense(x: Any, path: str) -> Any:
        return F.linear(x, params[f"{path}/kernel"].T, params[f"{path}/bias"])

    def norm(x: Any, path: str) -> Any:
        weights = params[f"{path}/scale"], params[f"{path}/bias"]
        return F.layer_norm(x, x.shape[-1:], *weights, epsilon)

    def split(x: Any) -> Any:
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    # The table of types may have one row, and padding is of no type.
    which = (x[..., 1] - 1).clamp(0, len(params["embed/type"]) - 1)
    y = F.embedding(x[..., 0], params["embed/word"])
    y = y + params["embed/position"][first : first + x.shape[1]]
    y = norm(y + F.embedding(which, params["embed/type"]), "embed/norm")
    y = dense(y, "embed/project") if "embed/project/kernel" in params else y
    for block in setup.backbone.blocks[1:-2]:
        parts = [
            split(dense(y, f"{block}/attn/{n}")) for n in ("query", "key", "value")
        ]
        z = F.scaled_dot_product_attention(*parts, attn_mask=read)
        z = dense(z.transpose(1, 2).flatten(2), f"{block}/attn/out")
        y = norm(y + z, f"{block}/norm1")
        z = dense(F.gelu(dense(y, f"{block}/fc1")), f"{block}/fc2")
        y = norm(y + z, f"{block}/norm2")
    if "pooler/kernel" in params:
        y = dense(y[:, 0], "pooler")
        y = F.gelu(y) if kind == "electra" else y.tanh()
    elif _pooling(setup) == "first":
        y = y[:, 0]
    else:
        y = (y * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    return dense(y, "head")


def _details(setup: Setup) -> tuple[int, float, int, str]:
    """Heads, epsilon of the norms, the row of the first position, and the kind."""
    backbone = setup.settings["backbone"]
    weights, variant = backbone["weights"], backbone["variant"] or "minilm-l6"
    if weights is None:
        named = isinstance(variant, str)
        shape = bert.VARIANTS[variant] if named else bert.Shape(*variant)
        return shape.heads, 1e-12, 0, "bert"
    folder = fetch.path(weights) if weights == bert.ASSET else Path(weights)
    config = read_config(folder)
    return config.heads, config.epsilon, config.first, config.kind


def _pooling(setup: Setup) -> str:
    return setup.settings["backbone"]["pooling"] or "mean"
