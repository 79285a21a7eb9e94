"""The usual PyTorch way beside ours: dense gradients, masked, and a dense Adam.

The network is the config's, a ViT or a BERT, with its weights, on the first batch of
training; of texts both are given the same padding. The mask is one random input of each
neuron, all biases but those of norms, and LayerScale, as GPS trains them. PyTorch is as
it comes: eager, its default Adam or AdamW, as many threads as it takes; on a GPU with
its products in TF32, as XLA's are.

Both run in one process, which keeps the memory that is freed
(`process.keep_memory`). PyTorch profits by that too: by itself it would be somewhat
slower than it is here.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask
from subtune_jax.data import augment, batches, dataset
from subtune_jax.methods import full, random
from subtune_jax.selection import masks
from subtune_jax.study import timing
from subtune_jax.study.benches import method
from subtune_jax.study.benches.sparse import FORMS
from subtune_jax.study.reference import torch_bert, torch_vit
from subtune_jax.training import evidence, setup
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

ABSENT = "torch is not installed: pip install subtune-jax[bench]"
OTHER = "only for vit and bert in float32, of classes, no dropout, by adam or adamw"
NETWORKS = {"bert": torch_bert, "vit": torch_vit}
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
PAIRS = {"gps_k1": "torch_masked", "full": "torch_full"}
LIMITS = {"vit": {"gps_k1": 0.65}, "bert": {"gps_k1": 0.65, "full": 1.0}}


def run(made: Setup, repeats: int) -> dict[str, Any]:
    """Times of a step.

    Returns:
      `milliseconds`: of `gps_k1`, `full`, `torch_masked` and `torch_full`; `ratios`:
      `gps_k1` by `torch_masked` and `full` by `torch_full`, in the same turns;
      `shape` of the batch; `difference`: the largest of the two networks' logits;
      `checks`. Only `reason` and no checks where there is nothing to compare.
    """
    reason = _reason(made)
    if reason is not None:
        return {"reason": reason, "checks": []}
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
        steps[PAIRS[name]] = _stepping(made, one.plan.mask)
    found = _compared(timing.by_turns(steps, repeats), LIMITS[made.backbone.name])
    shape = list(_batch(made)[0].shape)
    return {**found, "shape": shape, "difference": _difference(made)}


def _compared(
    seconds: dict[str, list[float]], limits: dict[str, float]
) -> dict[str, Any]:
    """`milliseconds`, `ratios` and `checks`."""
    names = {mine: f"{mine} by {theirs}" for mine, theirs in PAIRS.items()}
    ratios = {
        names[mine]: timing.ratio(seconds[mine], seconds[theirs])
        for mine, theirs in PAIRS.items()
    }
    medians = {mine: ratios[name]["median"] for mine, name in names.items()}
    return {
        "milliseconds": {
            name: {k: 1e3 * v for k, v in timing.spread(some).items()}
            for name, some in seconds.items()
        },
        "ratios": ratios,
        "checks": [
            timing.check(f"time: {names[mine]}", medians[mine], limit)
            for mine, limit in limits.items()
        ],
    }


def _reason(made: Setup) -> str | None:
    """Why there is nothing to compare; None where there is."""
    if importlib.util.find_spec("torch") is None:
        return ABSENT
    usual = made.backbone.name in NETWORKS and not made.backbone.drops
    usual &= not made.task.dense and not made.task.regression
    usual &= made.settings["dtype"] == "float32"
    usual &= made.settings["optimizer"]["name"] in OPTIMIZERS
    return None if usual else OTHER


def _stepping(made: Setup, mask: Mask) -> Callable[[], None]:
    """A call takes one more step of PyTorch's."""
    import torch

    flags = trees.flatten(masks.expand(made.variables.params, mask))
    device = _device()
    params = {path: p.to(device) for path, p in _parameters(made).items()}
    partial = [
        (params[path], torch.tensor(np.asarray(flag), dtype=torch.float32).to(device))
        for path, flag in flags.items()
        if not np.all(flag)
    ]
    trained = [params[path] for path, flag in flags.items() if np.any(flag)]
    for param in trained:
        param.requires_grad_()
    chosen = made.settings["optimizer"]
    optimizer = getattr(torch.optim, OPTIMIZERS[chosen["name"]])
    rate, decay, clip = (
        chosen[key] for key in ("learning_rate", "weight_decay", "clip_norm")
    )
    adam = optimizer(trained, lr=rate, weight_decay=decay)
    x, labels = (torch.tensor(array).to(device) for array in _batch(made))
    forward = NETWORKS[made.backbone.name].logits

    def step() -> None:
        adam.zero_grad()
        logits = forward(made, params, x)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        for param, flag in partial:
            if param.grad is not None:
                param.grad.mul_(flag)
        if clip:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        adam.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _device() -> str:
    """PyTorch's name of where JAX computes."""
    import torch

    if jax.default_backend() != "gpu":
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def _parameters(made: Setup) -> dict[str, Any]:
    import torch

    flat = trees.flatten(made.variables.params)
    return {path: torch.tensor(np.asarray(leaf)) for path, leaf in flat.items()}


def _batch(made: Setup) -> tuple[np.ndarray, np.ndarray]:
    """What the first step sees: the first block's input, and int64 labels `[B]`."""
    rows = setup.batch_rows(made)
    feed = batches.training(made.train, rows, made.settings["seed"])
    resident: Any = feed.resident
    piece: Any = next(feed.pieces(0, 1))
    found: Any = dataset.lookup(resident, piece)
    x, labels = (each[: rows.batch_size] for each in found)
    return np.array(dataset.normalize(made.backbone, x)), labels.astype(np.int64)


def _difference(made: Setup) -> float:
    import torch

    x, _ = _batch(made)
    forward = NETWORKS[made.backbone.name].logits
    with torch.no_grad():
        theirs = forward(made, _parameters(made), torch.tensor(x)).numpy()
    apply, stats = jax.jit(made.backbone.apply), made.variables.stats
    ours = apply(made.variables.params, stats, x)[0]
    return float(np.abs(np.asarray(ours) - theirs).max())
