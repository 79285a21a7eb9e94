"""The layouts in which libraries store vision transformers, told by their names.

A layout also says what a file does not: which GELU, which epsilon, which pixels and
which resampling of the position table the network was trained with.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """How one library names the weights of a ViT, and how it runs them.

    Attributes:
      marker: regex of a name that only this layout has.
      ignored: regex of whole names that belong to no base: classifiers and the like.
      renames: (regex, replacement), applied in order.
      epsilon: of the layer norms.
      gelu: "exact" or "tanh".
      normalize: "half" or "imagenet".
      positions: how the position table is resampled, see `positions.resample`.
    """

    marker: str
    ignored: str
    renames: tuple[tuple[str, str], ...]
    epsilon: float = 1e-6
    gelu: str = "exact"
    normalize: str = "half"
    positions: str = "cubic"


_HUGGING_FACE = (
    (r"^embeddings\.patch_embeddings\.projection\.", "embed."),
    (r"^embeddings\.cls_token$", "embed.token"),
    (r"^embeddings\.position_embeddings$", "embed.position"),
    (r"^encoder\.layer\.(\d+)\.", r"block\1."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.out."),
    (r"^layernorm\.", "norm."),
)

# Where a library serves several trainings, `normalize` is that of its plain ViTs; timm
# files of DeiT, DINO or MAE want "imagenet". torchvision resamples with aligned
# corners, here it is "cubic" too.
LAYOUTS = {
    "jax": Layout(  # vision_transformer and big_vision, before and since Flax Linen
        marker=r"Transformer/encoderblock_0/LayerNorm_0/scale$",
        ignored=r"(head|pre_logits)\..*",
        renames=(
            (r"^embedding\.", "embed."),
            (r"^cls$", "embed.token"),
            (r"^(Transformer\.)?(posembed_input\.)?pos_embedding$", "embed.position"),
            (r"^Transformer\.encoder_norm\.", "norm."),
            (r"^Transformer\.encoderblock_(\d+)\.", r"block\1."),
            (r"\.LayerNorm_0\.", ".norm1."),
            (r"\.LayerNorm_[12]\.", ".norm2."),
            (r"\.MultiHeadDotProductAttention_[01]\.", ".attn."),
            (r"\.MlpBlock_[03]\.Dense_0\.", ".fc1."),
            (r"\.MlpBlock_[03]\.Dense_1\.", ".fc2."),
        ),
        gelu="tanh",
        positions="linear",
    ),
    "timm": Layout(  # and the original DeiT, DINO, DINOv2
        marker=r"^blocks\.0\.attn\.qkv\.weight$",
        ignored=r"(head|pre_logits)\..*|mask_token",
        renames=(
            (r"^patch_embed\.proj\.", "embed."),
            (r"^cls_token$", "embed.token"),
            (r"^pos_embed$", "embed.position"),
            (r"^blocks\.(\d+)\.", r"block\1."),
            (r"\.attn\.proj\.", ".attn.out."),
            (r"\.mlp\.fc", ".fc"),
            (r"\.ls([12])\.gamma$", r".scale\1"),
        ),
        positions="antialiased",
    ),
    "huggingface": Layout(  # transformers' ViTModel, ViTForImageClassification
        marker=r"encoder\.layer\.0\.layernorm_before\.weight$",
        ignored=r"(classifier|pooler)\..*|embeddings\.mask_token",
        renames=(
            *_HUGGING_FACE,
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".fc1."),
            (r"\.output\.dense\.", ".fc2."),
        ),
        epsilon=1e-12,
    ),
    "dinov2": Layout(  # transformers' Dinov2Model, and the ONNX file of `vit_s14`
        marker=r"encoder\.layer\.0\.layer_scale1\.lambda1$",
        ignored=r"(classifier|decoder)\..*|embeddings\.mask_token",
        renames=(
            *_HUGGING_FACE,
            (r"\.mlp\.fc", ".fc"),
            (r"\.layer_scale([12])\.lambda1$", r".scale\1"),
        ),
        normalize="imagenet",
    ),
    "torchvision": Layout(
        marker=r"^encoder\.layers\.encoder_layer_0\.ln_1\.weight$",
        ignored=r"heads\..*",
        renames=(
            (r"^conv_proj\.", "embed."),
            (r"^class_token$", "embed.token"),
            (r"^encoder\.pos_embedding$", "embed.position"),
            (r"^encoder\.ln\.", "norm."),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"block\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.out."),
            (r"\.mlp\.(0|linear_1)\.", ".fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".fc2."),
        ),
        normalize="imagenet",
    ),
}

PLAIN = LAYOUTS["timm"]  # how a network without a file is run


def detect(names: Iterable[str], source: Any) -> Layout:
    """The layout that has these names.

    Raises:
      ValueError: none has.
    """
    names = list(names)
    for layout in LAYOUTS.values():
        if any(re.search(layout.marker, name) for name in names):
            return layout
    some = ", ".join(sorted(names)[:3])
    known = ", ".join(LAYOUTS)
    raise ValueError(f"{source} ({some}, ...) is no ViT of a layout in {known}")
