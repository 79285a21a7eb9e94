"""The usual PyTorch way compared with ours: dense gradients, masked, and a dense Adam.

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
from subtune_jax.study import step_runs, timing
from subtune_jax.study.reference import torch_bert, torch_vit
from subtune_jax.training import evidence
from subtune_jax.training.setup import Setup, batch_rows
from subtune_jax.training.step import State

ABSENT = "torch is not installed: pip install subtune-jax[bench]"
UNUSUAL = "only for vit and bert in float32, of classes, no dropout, by adam or adamw"
NETWORKS = {"bert": torch_bert, "vit": torch_vit}
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
PAIRS = {"gps_k1": "torch_masked", "full": "torch_full"}
LIMITS = {"vit": {"gps_k1": 0.65}, "bert": {"gps_k1": 0.65, "full": 1.0}}


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Times of a step.

    Returns:
      `milliseconds`: of `gps_k1`, `full`, `torch_masked` and `torch_full`; `ratios`:
      `gps_k1` by `torch_masked` and `full` by `torch_full`, in the same turns;
      `shape` of the batch; `difference`: the largest of the two networks' logits;
      `checks`. Only `reason` and no checks where there is nothing to compare.
    """
    reason = _reason(setup)
    if reason is not None:
        return {"reason": reason, "checks": []}
    setup = setup._replace(augment=augment.NONE)
    gathered = evidence.make(setup)
    selections = {
        "gps_k1": random.make(**step_runs.AS_GPS).init(gathered),
        "full": full.make().init(gathered),
    }
    states: dict[str, State] = {}
    steps: dict[str, Callable[[], object]] = {}
    for name, selection in selections.items():
        plan = step_runs.plan_of(setup, selection)
        form = step_runs.assemble(setup, plan, cached=False)
        steps[name] = step_runs.stepping(form, states, name)
        steps[PAIRS[name]] = _stepping(setup, form.partition.mask)
    compared = _compared(timing.by_turns(steps, repeats), LIMITS[setup.backbone.name])
    shape = list(_batch(setup)[0].shape)
    return {**compared, "shape": shape, "difference": _difference(setup)}


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
            name: {k: 1e3 * v for k, v in timing.spread(turns).items()}
            for name, turns in seconds.items()
        },
        "ratios": ratios,
        "checks": [
            timing.check(f"time: {names[mine]}", medians[mine], limit)
            for mine, limit in limits.items()
        ],
    }


def _reason(setup: Setup) -> str | None:
    """Why there is nothing to compare; None where there is."""
    if importlib.util.find_spec("torch") is None:
        return ABSENT
    usual = setup.backbone.name in NETWORKS and not setup.backbone.drops
    usual &= not setup.task.dense and not setup.task.regression
    usual &= setup.settings["dtype"] == "float32"
    usual &= setup.settings["optimizer"]["name"] in OPTIMIZERS
    return None if usual else UNUSUAL


def _stepping(setup: Setup, mask: Mask) -> Callable[[], None]:
    """A call takes one more step of PyTorch's."""
    import torch

    flags = trees.flatten(masks.expand(setup.variables.params, mask))
    device = _device()
    params = {path: p.to(device) for path, p in _parameters(setup).items()}
    partial = [
        (params[path], torch.tensor(np.asarray(flag), dtype=torch.float32).to(device))
        for path, flag in flags.items()
        if not np.all(flag)
    ]
    trained = [params[path] for path, flag in flags.items() if np.any(flag)]
    for param in trained:
        param.requires_grad_()
    options = setup.settings["optimizer"]
    optimizer = getattr(torch.optim, OPTIMIZERS[options["name"]])
    rate, decay, clip = (
        options[key] for key in ("learning_rate", "weight_decay", "clip_norm")
    )
    adam = optimizer(trained, lr=rate, weight_decay=decay)
    x, labels = (torch.tensor(array).to(device) for array in _batch(setup))
    forward = NETWORKS[setup.backbone.name].logits

    def step() -> None:
        adam.zero_grad()
        logits = forward(setup, params, x)
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


def _parameters(setup: Setup) -> dict[str, Any]:
    import torch

    flat = trees.flatten(setup.variables.params)
    return {path: torch.tensor(np.asarray(leaf)) for path, leaf in flat.items()}


def _batch(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """What the first step takes: the first block's input, and int64 labels `[B]`."""
    rows = batch_rows(setup)
    feed = batches.training(setup.train, rows, setup.settings["seed"])
    resident: Any = feed.resident
    piece: Any = next(feed.pieces(0, 1))
    batch: Any = dataset.lookup(resident, piece)
    x, labels = (array[: rows.batch_size] for array in batch)
    return np.array(dataset.normalize(setup.backbone, x)), labels.astype(np.int64)


def _difference(setup: Setup) -> float:
    import torch

    x, _ = _batch(setup)
    forward = NETWORKS[setup.backbone.name].logits
    with torch.no_grad():
        theirs = forward(setup, _parameters(setup), torch.tensor(x)).numpy()
    apply, stats = jax.jit(setup.backbone.apply), setup.variables.stats
    ours = apply(setup.variables.params, stats, x)[0]
    return float(np.abs(np.asarray(ours) - theirs).max())
