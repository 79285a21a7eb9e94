"""Updates block by block are those of the whole optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subtune_jax.core import devices, losses, program_store, registry, trees
from subtune_jax.optim import optimizer
from subtune_jax.training import block_programs, block_update
from subtune_jax.training.step import Recipe

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
    """The recipe of a network, its parameters and an empty program store."""
    backbone = registry.load("backbones", VIT)
    params = backbone.init(jax.random.key(0), 3).params
    store = program_store.make(devices.choose("shard_map", jax.devices()[:1]))
    recipe = Recipe(backbone, losses.cross_entropy, 3, optax.identity())
    return recipe, params, store


def leaves(params, *blocks):
    flat = trees.flatten({block: params[block] for block in blocks})
    return {path: jnp.array(x) for path, x in flat.items()}


@pytest.mark.parametrize("choice", CHOICES)
def test_updates_by_block_are_those_of_the_whole_optimizer(choice, network):
    recipe, params, store = network
    options = optimizer.make(**CHOICES[choice])
    values = whole = leaves(params, "block01", "block02", "head")
    averages = mean = whole
    recipe = recipe._replace(ema=0.5)
    tx = options.transform(5, recipe.backbone.blocks)
    state = tx.init(whole)
    rule, states = block_update.begin(store, recipe, options, 5, values)
    rng = np.random.default_rng(0)
    for _ in range(5):
        flat = {p: jnp.float32(rng.normal(size=x.shape)) for p, x in whole.items()}
        updates, state = tx.update(flat, state, whole)
        whole = optax.apply_updates(whole, updates)
        mean = {path: 0.5 * mean[path] + 0.5 * leaf for path, leaf in whole.items()}
        grads = block_programs.by_block(flat)
        given = values, states, averages, grads
        values, states, averages, norm = block_update.update(
            store, recipe, rule, *given
        )
        if options.clip_norm:
            assert float(norm["grad_norm"]) == pytest.approx(
                float(optax.tree.norm(flat)), rel=1e-5
            )
    for path in whole:
        np.testing.assert_allclose(values[path], whole[path], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(averages[path], mean[path], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("choice", "shared"),
    [("adamw", True), ("decay of one block", False), ("rate by depth", False)],
)
def test_alike_blocks_share_an_update_where_they_are_treated_alike(
    choice, shared, network
):
    recipe, params, store = network
    options, counts = optimizer.make(**CHOICES[choice]), []
    for block in ("block01", "block02"):
        values = leaves(params, block)
        rule, states = block_update.begin(store, recipe, options, 5, values)
        grads = block_programs.by_block(values)
        block_update.update(store, recipe, rule, values, states, None, grads)
        counts.append(len(store.compiled))
    assert (counts[1] == counts[0]) is shared
