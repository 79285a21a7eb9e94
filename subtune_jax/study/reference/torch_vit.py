"""The ViT of `backbones.vit` in PyTorch."""

from typing import Any

from subtune_jax.backbones.vit import VARIANTS, Shape
from subtune_jax.training.setup import Setup

EPSILON = 1e-6  # of the layer norms, unless a config or weights say otherwise


def logits(setup: Setup, params: dict[str, Any], x: Any) -> Any:
    """`[B, H, W, 3]`, normalised -> `[B, C]`."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    variant = setup.settings["backbone"]["variant"]
    shape = VARIANTS[variant] if isinstance(variant, str) else Shape(*variant)

    def dense(x: Any, path: str) -> Any:
        return F.linear(x, params[f"{path}/kernel"].T, params[f"{path}/bias"])

    def norm(x: Any, path: str) -> Any:
        weights = params[f"{path}/scale"], params[f"{path}/bias"]
        return F.layer_norm(x, (shape.width,), *weights, EPSILON)

    def heads(x: Any) -> Any:
        return x.unflatten(2, (shape.heads, -1)).transpose(1, 2)

    kernel = params["embed/kernel"].permute(3, 2, 0, 1)
    x = F.conv2d(x.permute(0, 3, 1, 2), kernel, params["embed/bias"], shape.patch)
    x = x.flatten(2).transpose(1, 2)
    first = params["embed/token"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + params["embed/position"]
    for block in setup.backbone.blocks[1:-2]:
        y = norm(x, f"{block}/norm1")
        parts = [
            heads(dense(y, f"{block}/attn/{n}")) for n in ("query", "key", "value")
        ]
        y = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        y = dense(y, f"{block}/attn/out")
        x = x + y * params.get(f"{block}/scale1", 1.0)
        y = dense(
            F.gelu(dense(norm(x, f"{block}/norm2"), f"{block}/fc1")), f"{block}/fc2"
        )
        x = x + y * params.get(f"{block}/scale2", 1.0)
    return dense(norm(x[:, 0], "norm"), "head")
