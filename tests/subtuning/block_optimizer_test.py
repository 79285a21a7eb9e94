"""Updates block by block are those of the whole optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.optim import optimizer
from subtune_jax.subtuning import block_optimizer
from subtune_jax.subtuning.block_programs import Programs

VIT = {"name": "vit", "variant": (16, 3, 2, 8, False), "image_size": 16}
CHOICES = {
    "adamw": {"weight_decay": 0.1, "clip_norm": 0.5},
    "adam with decay": {"name": "adam", "weight_decay": 0.1},
    "sgd": {"name": "sgd", "warmup_steps": 2},
    "decay of one block": {"weight_decay": 0.3, "decay": "block02/.*"},
    "rate by depth": {"layer_decay": 0.5, "clip_norm": 1e-3},
}


@pytest.fixture(scope="module")
def network():
    """A network, its parameters and empty block programs."""
    backbone = registry.load("backbones", VIT)
    params = backbone.init(jax.random.key(0), 3).params
    where = devices.choose("shard_map", jax.devices()[:1])
    programs = Programs(
        backbone, losses.cross_entropy, jnp.float32, where, {}, {"flops": 0.0}
    )
    return backbone, params, programs


def leaves(params, block):
    return {path: jnp.array(x) for path, x in trees.flatten(params[block]).items()}


@pytest.mark.parametrize("choice", CHOICES)
def test_updates_by_block_are_those_of_the_whole_optimizer(choice, network):
    backbone, params, programs = network
    options = optimizer.make(**CHOICES[choice])
    values = {b: leaves(params, b) for b in ("block01", "block02", "head")}
    whole = trees.flatten(values)
    tx = options.transform(5, backbone.blocks)
    state = tx.init(whole)
    rule, values, moments = block_optimizer.begin(programs, options, 5, values)
    rng = np.random.default_rng(0)
    for _ in range(5):
        flat = {p: jnp.float32(rng.normal(size=x.shape)) for p, x in whole.items()}
        updates, state = tx.update(flat, state, whole)
        whole = optax.apply_updates(whole, updates)
        grads = {b: {p: flat[f"{b}/{p}"] for p in own} for b, own in values.items()}
        values, moments = block_optimizer.update(programs, rule, values, moments, grads)
    for path, leaf in trees.flatten(values).items():
        np.testing.assert_allclose(leaf, whole[path], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("choice", "shared"),
    [("adamw", True), ("decay of one block", False), ("rate by depth", False)],
)
def test_alike_blocks_share_an_update_where_they_are_treated_alike(
    choice, shared, network
):
    _, params, programs = network
    options, counts = optimizer.make(**CHOICES[choice]), []
    for block in ("block01", "block02"):
        values = {block: leaves(params, block)}
        rule, values, moments = block_optimizer.begin(programs, options, 5, values)
        block_optimizer.update(programs, rule, values, moments, values)
        counts.append(len(programs.compiled))
    assert (counts[1] == counts[0]) is shared
