"""What the convolutions for CPUs are worth: EfficientNet-Lite0, forward and backward.

    python -m subtune_jax.study.benches.efficientnet

By turns in one process: this package; the same with XLA's native depthwise
convolution; and PyTorch, in both of its memory formats, where it is installed. All run
the same random weights on the same images, batch norms in evaluation mode; `gradient`
is the loss and the gradient of every parameter.
"""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.backbones import efficientnet_lite0
from subtune_jax.core import losses, trees
from subtune_jax.core.contracts import Backbone, Variables
from subtune_jax.models import convolutions

CLASSES = 1000
ABSENT = "torch is not installed: pip install subtune-jax[bench]"


class Form(NamedTuple):
    """A way to run the network; both functions return when they are done."""

    forward: Callable[[], Any]  # -> logits `[B, C]`
    gradient: Callable[[], Any]


def run(repeats: int = 5, batch: int = 32, image_size: int = 128) -> dict[str, Any]:
    """Times of each form and its ratios to ours, medians over turns.

    Args:
      repeats: turns; each form runs once a turn, after one run that does not count.
      batch: images a run.
      image_size: height and width.

    Returns:
      `milliseconds`: form -> {`forward`, `gradient`}, an image; `ratios`: the same, in
      times of ours in the same turn; `difference`: form -> largest absolute difference
      of a logit from ours. The forms are `ours`, `native_depthwise`, `torch` and
      `torch_channels_last`; the last two are None, and `reason` says why, without
      PyTorch.
    """
    backbone = efficientnet_lite0.make(weights=None, image_size=image_size)
    variables = backbone.init(jax.random.key(0), CLASSES)
    shape = (batch, image_size, image_size, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    forms = {"ours": _jax_form(backbone, variables, x)}
    with mock.patch.object(convolutions, "_depthwise", convolutions._native):
        forms["native_depthwise"] = _jax_form(backbone, variables, x)
    absent = importlib.util.find_spec("torch") is None
    if not absent:
        forms["torch"] = _torch_form(variables, x, "contiguous_format")
        forms["torch_channels_last"] = _torch_form(variables, x, "channels_last")
    result = _measure(forms, repeats, batch)
    if absent:
        for table in result.values():
            table |= {"torch": None, "torch_channels_last": None}
    return {**result, "reason": ABSENT if absent else None}


def _measure(forms: dict[str, Form], repeats: int, batch: int) -> dict[str, Any]:
    logits = {name: np.asarray(form.forward()) for name, form in forms.items()}
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(repeats + 1):
        for name, form in forms.items():
            for what, function in form._asdict().items():
                start = time.perf_counter()
                function()
                if turn:
                    taken = time.perf_counter() - start
                    seconds.setdefault((name, what), []).append(taken)

    def table(value: Callable[[float, float], float]) -> dict[str, Any]:
        return {
            name: {
                what: statistics.median(
                    map(value, seconds[name, what], seconds["ours", what])
                )
                for what in Form._fields
            }
            for name in forms
        }

    return {
        "milliseconds": table(lambda taken, ours: 1e3 * taken / batch),
        "ratios": table(lambda taken, ours: taken / ours),
        "difference": {
            name: float(np.abs(each - logits["ours"]).max())
            for name, each in logits.items()
        },
    }


def _labels(x: np.ndarray) -> np.ndarray:
    return np.arange(len(x)) % CLASSES


def _jax_form(backbone: Backbone, variables: Variables, x: np.ndarray) -> Form:
    params, stats = variables
    targets = jax.nn.one_hot(_labels(x), CLASSES)

    def logits(params: Any, x: jax.Array) -> jax.Array:
        return backbone.apply(params, stats, x)[0]

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return losses.cross_entropy(logits(params, x), targets).mean()

    images = jnp.asarray(x)
    forward = jax.jit(logits).lower(params, images).compile()
    gradient = jax.jit(jax.value_and_grad(loss)).lower(params, images).compile()
    return Form(
        lambda: jax.block_until_ready(forward(params, images)),
        lambda: jax.block_until_ready(gradient(params, images)),
    )


def _torch_form(variables: Variables, x: np.ndarray, memory_format: str) -> Form:
    import torch

    order = getattr(torch, memory_format)

    def tensor(array: Any) -> Any:
        array = np.asarray(array)
        if array.ndim < 4:
            return torch.tensor(array)
        return torch.tensor(array).contiguous(memory_format=order)

    params = {
        path: tensor(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        for path, array in trees.flatten(variables.params).items()
    }
    stats = {path: tensor(a) for path, a in trees.flatten(variables.stats).items()}
    for param in params.values():
        param.requires_grad_()
    images, labels = tensor(x.transpose(0, 3, 1, 2)), torch.tensor(_labels(x))

    def forward() -> Any:
        with torch.no_grad():
            return _torch_logits(params, stats, images)

    def gradient() -> None:
        for param in params.values():
            param.grad = None
        logits = _torch_logits(params, stats, images)
        torch.nn.functional.cross_entropy(logits, labels).backward()

    return Form(forward, gradient)


def _torch_logits(params: dict[str, Any], stats: dict[str, Any], x: Any) -> Any:
    import torch.nn.functional as F  # noqa: N812

    def layer(x: Any, conv: str, norm: str, stride: int = 1) -> Any:
        kernel = params[f"{conv}/kernel"]
        size, groups = kernel.shape[-1], x.shape[1] // kernel.shape[1]
        around = [max(-n % stride + size - stride, 0) for n in x.shape[2:]]
        even = (stride == 1) * (size // 2)
        if stride > 1:  # XLA's SAME puts the odd pixel at the end
            around = [(total // 2, total - total // 2) for total in around]
            x = F.pad(x, (*around[1], *around[0]))
        x = F.conv2d(x, kernel, None, stride, even, 1, groups)
        return F.batch_norm(
            x,
            stats[f"{norm}/mean"],
            stats[f"{norm}/var"],
            params[f"{norm}/scale"],
            params[f"{norm}/bias"],
            eps=1e-3,
        )

    x = F.relu6(layer(x, "stem/conv", "stem/norm", 2))
    number = 0
    for repeat, _, first, expansion, _ in efficientnet_lite0.STAGES:
        for stride in (first, *[1] * (repeat - 1)):
            number += 1
            own, y = f"block{number:02d}", x
            if expansion > 1:
                y = F.relu6(layer(y, f"{own}/expand", f"{own}/expand_norm"))
            y = F.relu6(layer(y, f"{own}/filter", f"{own}/filter_norm", stride))
            y = layer(y, f"{own}/project", f"{own}/project_norm")
            x = x + y if x.shape == y.shape else y
    x = F.relu6(layer(x, "top/conv", "top/norm")).mean((2, 3))
    return x @ params["head/kernel"] + params["head/bias"]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
