"""The usual PyTorch way beside ours: dense gradients, masked, and a dense Adam.

The network is the config's ViT with its weights, on the same batch; the mask is one
random input of each neuron, biases and LayerScale besides, as GPS trains them.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from subtune_jax import augment, evidence, masks, measure, trees
from subtune_jax.backbones.vit import VARIANTS
from subtune_jax.benches import method
from subtune_jax.benches.sparse import FORMS
from subtune_jax.contracts import Mask
from subtune_jax.methods import full, random
from subtune_jax.setup import Setup
from subtune_jax.step import State

ABSENT = "torch is not installed: pip install subtune-jax[bench]"
OTHER = "only for vit, a variant by name"
LIMIT = 0.65


def run(made: Setup, repeats: int) -> dict[str, Any]:
    """Times of a step.

    Returns:
      `milliseconds`: of `gps_k1`, `full`, `torch_masked` and `torch_full`; `ratios`:
      `gps_k1` by `torch_masked` and `full` by `torch_full`, in the same turns;
      `difference`: the largest of the two networks' logits; `checks`. Only `reason`,
      without PyTorch or a ViT.
    """
    variant = made.settings["backbone"].get("variant")
    if importlib.util.find_spec("torch") is None:
        return {"reason": ABSENT, "checks": []}
    if made.backbone.name != "vit" or variant not in VARIANTS:
        return {"reason": OTHER, "checks": []}
    made = made._replace(augment=augment.NONE)
    given = evidence.make(made)
    chosen = {
        "gps_k1": random.make(**FORMS["gps_k1"]).init(given),
        "full": full.make().init(given),
    }
    states: dict[str, State] = {}
    steps: dict[str, Callable[[], object]] = {}
    for name, selection in chosen.items():
        one = method.assemble(made, method.plan_of(made, selection), cached=False)
        steps[name] = method.stepping(one, states, name)
        steps[f"torch_{name}"] = _stepping(made, one.plan.mask)
    seconds = measure.by_turns(steps, repeats)
    ratios = {
        f"{name} by PyTorch": measure.ratio(seconds[name], seconds[f"torch_{name}"])
        for name in chosen
    }
    value = ratios["gps_k1 by PyTorch"]["median"]
    return {
        "milliseconds": {
            name: {k: 1e3 * v for k, v in measure.spread(some).items()}
            for name, some in seconds.items()
        },
        "ratios": ratios,
        "difference": _difference(made),
        "checks": [measure.check("K=1: time by PyTorch, masked Adam", value, LIMIT)],
    }


def _stepping(made: Setup, mask: Mask) -> Callable[[], None]:
    """A call takes one more step of PyTorch's."""
    import torch

    flags = trees.flatten(masks.expand(made.variables.params, mask))
    params = _parameters(made)
    partial = [
        (params[path], torch.tensor(np.asarray(flag), dtype=torch.float32))
        for path, flag in flags.items()
        if not np.all(flag)
    ]
    trained = [params[path] for path, flag in flags.items() if np.any(flag)]
    for param in trained:
        param.requires_grad_()
    adam = torch.optim.Adam(trained, lr=1e-4)
    images, labels = _batch(made)
    clip = made.settings["optimizer"]["clip_norm"]

    def step() -> None:
        adam.zero_grad()
        logits = _logits(made, params, images)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        for param, flag in partial:
            if param.grad is not None:
                param.grad.mul_(flag)
        if clip:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        adam.step()

    return step


def _parameters(made: Setup) -> dict[str, Any]:
    import torch

    flat = trees.flatten(made.variables.params)
    return {path: torch.tensor(np.asarray(leaf)) for path, leaf in flat.items()}


def _batch(made: Setup) -> tuple[Any, Any]:
    """The first images `[B, H, W, 3]`, normalised, and their labels."""
    import torch

    where = np.arange(made.settings["batch_size"]) % len(made.train.labels)
    images = made.train.read(where).astype(np.float32)
    mean, std = (np.asarray(x, np.float32) for x in made.backbone.normalize)
    labels = torch.tensor(made.train.labels[where], dtype=torch.int64)
    return torch.tensor((images - mean) / std), labels


def _difference(made: Setup) -> float:
    import torch

    images, _ = _batch(made)
    with torch.no_grad():
        theirs = _logits(made, _parameters(made), images).numpy()
    apply, stats = jax.jit(made.backbone.apply), made.variables.stats
    ours = apply(made.variables.params, stats, images.numpy())[0]
    return float(np.abs(np.asarray(ours) - theirs).max())


def _logits(made: Setup, params: dict[str, Any], x: Any) -> Any:
    import torch
    import torch.nn.functional as F  # noqa: N812

    shape = VARIANTS[made.settings["backbone"]["variant"]]

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
    for block in made.backbone.blocks[1:-2]:
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


EPSILON = 1e-6  # of the layer norms of every layout that the ViT knows
