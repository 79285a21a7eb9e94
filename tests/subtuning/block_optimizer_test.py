"""Updates block by block are those of the whole optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.optim import optimizer
from subtune_jax.subtuning import block_optimizer, block_programs

VIT = {"name": "vit", "variant": (16, 3, 2, 8, False), "image_size": 16}
CHOICES = {
    "adamw": {"weight_decay": 0.1, "clip_norm": 0.5},
    "adam with decay": {"name": "adam", "weight_decay": 0.1},
    "sgd": {"name": "sgd", "warmup_steps": 2},
    "decay of one block": {"weight_decay": 0.3, "decay": "block02/.*"},
    "rate by depth": {"layer_decay": 0.5, "clip_norm": 1e-3},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_updates_by_block_are_those_of_the_whole_optimizer(choice):
    backbone = registry.load("backbones", VIT)
    variables = backbone.init(jax.random.key(0), 3)
    where = devices.choose("shard_map", jax.devices()[:1])
    parts = block_programs.make(backbone, losses.cross_entropy, jnp.float32, where)
    chosen = optimizer.make(**CHOICES[choice])
    trained = ("block01", "block02", "head")
    values = {
        b: {p: jnp.array(x) for p, x in trees.flatten(variables.params[b]).items()}
        for b in trained
    }
    whole = trees.flatten(values)
    tx = chosen.transform(5, backbone.blocks)
    state, rule = tx.init(whole), (chosen, 5)
    moments = {
        b: block_optimizer.begin(parts, rule, b, own) for b, own in values.items()
    }
    rng = np.random.default_rng(0)
    for _ in range(5):
        flat = {p: jnp.float32(rng.normal(size=x.shape)) for p, x in whole.items()}
        updates, state = tx.update(flat, state, whole)
        whole = optax.apply_updates(whole, updates)
        grads = {b: {p: flat[f"{b}/{p}"] for p in own} for b, own in values.items()}
        scale = block_optimizer.clip(parts, grads, chosen.clip_norm)
        for b in trained:
            values[b], moments[b] = block_optimizer.update(
                parts, rule, b, values[b], moments[b], grads[b], scale
            )
    for path, leaf in trees.flatten(values).items():
        np.testing.assert_allclose(leaf, whole[path], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("choice", "shared"),
    [("adamw", True), ("decay of one block", False), ("rate by depth", False)],
)
def test_alike_blocks_share_an_update_where_they_are_treated_alike(choice, shared):
    backbone = registry.load("backbones", VIT)
    variables = backbone.init(jax.random.key(0), 3)
    where = devices.choose("shard_map", jax.devices()[:1])
    parts = block_programs.make(backbone, losses.cross_entropy, jnp.float32, where)
    rule = (optimizer.make(**CHOICES[choice]), 5)
    counts = []
    for block in ("block01", "block02"):
        own = trees.flatten(variables.params[block])
        own = block_programs.replicate(parts, {p: jnp.array(x) for p, x in own.items()})
        one = block_programs.replicate(parts, jnp.ones(()))
        block_optimizer.update(
            parts,
            rule,
            block,
            own,
            block_optimizer.begin(parts, rule, block, own),
            own,
            one,
        )
        counts.append(len(parts.programs))
    assert (counts[1] == counts[0]) is shared
