"""A task where one block alone can help, and one where none need.

A network makes its own labels. Then the kernel of one of its blocks is set to zero:
what leaves that block is the same for every image. No block above it can tell images
apart, and no gradient passes to a block below it; training the block itself can bring
the labels back.
"""

import jax
import numpy as np

from subtune_jax.commands import configs
from subtune_jax.core import devices, registry, trees
from subtune_jax.core.contracts import Split, Task, Variables
from subtune_jax.data import dataset
from subtune_jax.training import setup

CLASSES = 4
GIVEN = {
    "task": {"name": "structured", "examples": 40, "image_size": 16},
    "backbone": {"name": "mlp", "image_size": 8, "widths": (24, 24, 24, 24)},
    "method": {"name": "head"},
    "optimizer": {"learning_rate": 3e-2, "probe_steps": 10},
    "batch_size": 20,
    "train_steps": 60,
}


def made(block, **more):
    """A setup whose base has lost `block`."""
    given = configs.complete({**GIVEN, **more})
    plain = setup.prepare(given)
    backbone = registry.load("backbones", given["backbone"])
    whole = jax.tree.map(np.asarray, backbone.init(jax.random.key(7), CLASSES))
    rng = np.random.default_rng(7)
    causes, effects = rng.normal(size=(700, 4)), rng.normal(size=(4, 8 * 8 * 3))
    images = np.clip(127.5 + 30 * causes @ effects, 0, 255).astype(np.uint8)
    images = images.reshape(-1, 8, 8, 3)
    logits = backbone.apply(*whole, (images.astype(np.float32) - 127.5) / 127.5)[0]
    centred = np.asarray(logits) - np.asarray(logits).mean(0)
    labels = (centred / centred.std(0)).argmax(-1).astype(np.int32)
    cuts = {"train": (0, 300), "validation": (300, 500), "test": (500, 700)}
    splits = {
        name: Split(lambda i, low=low: {"image": images[low + i]}, labels[low:high])
        for name, (low, high) in cuts.items()
    }
    flat = trees.flatten(whole.params)
    kernel, bias = f"{block}/dense/kernel", f"{block}/norm/bias"
    # A bias that keeps its units alive: a ReLU at zero has no gradient.
    flat |= {kernel: np.zeros_like(flat[kernel]), bias: 0.5 + 0 * flat[bias]}
    params = trees.nest(flat)
    base = {name: tree for name, tree in params.items() if name != "head"}
    head = setup.new_head(backbone, CLASSES, given["seed"])
    return plain._replace(
        task=Task("planted", tuple("abcd"), **splits),
        base=Variables(base, whole.stats),
        variables=Variables({**base, "head": head}, whole.stats),
        train=dataset.examples(splits["train"], 8),
        validation=dataset.examples(splits["validation"], 8),
        devices=devices.choose("shard_map", jax.devices()[:1]),
    )
