"""What the convolutions for CPUs are worth: EfficientNet-Lite0, forward and backward.

    python -m subtune_jax.benches.efficientnet

In one process and by turns: this package; the same network with XLA's native
convolutions; and PyTorch, in both of its memory formats, where it is installed. All
run the same random weights on the same images, with batch norms in evaluation mode;
the backward pass is that of every parameter.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import convolutions, losses
from subtune_jax.backbones import efficientnet_lite0

CLASSES = 1000
Passes = dict[str, Callable[[], Any]]  # "forward" and "gradient", each blocking


def run(repeats: int = 7, batch: int = 32, image_size: int = 128) -> dict[str, Any]:
    """Milliseconds an image of each form, medians, and their ratios to `ours`.

    Args:
      repeats: turns; each form runs once a turn, after one run that does not count.
      batch: images a run.
      image_size: height and width.

    Returns:
      `{"milliseconds", "ratios"}`, each {form: {"forward", "gradient"}}, a ratio being
      the median over turns of (time of form) / (time of ours); `torch_nchw` and
      `torch_nhwc` are None where `reason` says that PyTorch is absent.
    """
    image = np.random.default_rng(0).normal(size=(batch, image_size, image_size, 3))
    x = jnp.asarray(image, jnp.float32)
    forms: dict[str, Passes | None] = {"ours": _jax_passes(x)}
    with mock.patch.multiple(
        convolutions,
        full=convolutions.native,
        depthwise=convolutions.native,
        pointwise=lambda x, kernel: convolutions.native(x, kernel, 1),
    ):
        forms["native"] = _jax_passes(x)
    reason = None
    try:
        import torch
    except ImportError:
        reason = "torch is not installed; it is in the extra 'bench'"
        forms |= {"torch_nchw": None, "torch_nhwc": None}
    else:
        for name, order in (
            ("torch_nchw", torch.contiguous_format),
            ("torch_nhwc", torch.channels_last),
        ):
            forms[name] = _torch_passes(np.asarray(x), order)
    return {**_alternate(forms, repeats, batch), "reason": reason}
