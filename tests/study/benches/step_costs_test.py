"""What steps cost, as far as no clock is needed: operations, bytes, programs."""

from unittest import mock

import jax
import numpy as np
import optax
import pytest
import setups
import steps
from compilations import counted

from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import batches, dataset
from subtune_jax.optim import optimizer, partition
from subtune_jax.study.benches import blocks, method
from subtune_jax.training import step
from subtune_jax.training.setup import batch_rows

NETWORKS = {
    "efficientnet_lite0": {  # its own shapes: every kind of block once, and a skip
        "image_size": 64,
        "weights": None,
        "stages": ((1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (2, 5, 2, 6, 40)),
    },
    "vit": {"variant": (64, 2, 2, 8), "image_size": 32},
}


@pytest.mark.parametrize(
    "name", [pytest.param("efficientnet_lite0", marks=pytest.mark.slow), "vit"]
)
def test_a_step_of_one_block_costs_what_it_needs(name):
    setup = setups.of_images({"name": name, **NETWORKS[name]})
    for row in blocks.run(setup)["blocks"].values():
        assert 0.9 <= row["ratio"] <= blocks.LIMIT


def test_norms_and_clipping_bring_no_frozen_gradient_back():
    setup = setups.of_images(
        {"name": "vit", "variant": (64, 1, 2, 8), "image_size": 32}
    )
    plan = block_plan(setup, "norm")
    plain = compiled(setup, plan, optimizer.make(weight_decay=0.1))
    clipped = compiled(setup, plan, optimizer.make(weight_decay=0.1, clip_norm=1.0))
    with mock.patch.object(optax.tree, "norm", lambda tree: 0.0):
        bare = compiled(setup, plan, optimizer.make(weight_decay=0.1))
    assert plain.flops == pytest.approx(bare.flops, rel=0.01)
    assert clipped.flops == pytest.approx(bare.flops, rel=0.01)
    everything = Selection(trees.map_leaves(lambda p, x: np.True_, plan.mask))
    full = partition.make(setup.variables, setup.backbone.blocks, everything)
    assert compiled(setup, full, setup.optimizer).flops > 2 * bare.flops


def block_plan(setup, block):
    mask = trees.map_leaves(
        lambda path, leaf: np.bool_(path.startswith(f"{block}/")),
        setup.variables.params,
    )
    return partition.make(setup.variables, setup.backbone.blocks, Selection(mask))


def compiled(setup, plan, optim):
    flat = trees.flatten(setup.variables.params)
    transform = optim.transform(10, setup.backbone.blocks)
    classes = len(setup.task.classes)
    recipe = step.Recipe(setup.backbone, losses.cross_entropy, classes, transform)
    begin = step.start(recipe, flat, setup.variables.stats, plan.values, plan.positions)
    feed = batches.training(setup.train, batch_rows(setup), 0)
    return steps.compiled(setup.devices, recipe, begin, plan.positions, feed)


def test_the_optimiser_holds_two_moments_of_what_is_selected():
    setup = setups.of_images(
        {"name": "mlp", "image_size": 32, "widths": (64, 64)},
        method={"name": "random", "fraction": 0.1},
    )
    figures = method.run(setup, 1)
    k = figures["forms"]["method"]["trained"]
    base = sum(x.size for x in jax.tree.leaves(setup.variables.params))
    assert 0.1 * base < k < 0.12 * base
    assert 8 * k <= figures["forms"]["method"]["optimizer_bytes"] <= 1.05 * 8 * k
    head = sum(x.size for x in jax.tree.leaves(setup.variables.params["head"]))
    # int32 for what is chosen one by one; whole leaves, as the head's, have none.
    assert figures["forms"]["method"]["index_bytes"] == 4 * (k - head)
    assert figures["updates"]["compact"]["index_bytes"] == 4 * (k - head)
    compact, masked = figures["updates"]["compact"], figures["updates"]["masked"]
    assert 8 * k <= compact["state_bytes"] <= 1.05 * 8 * k
    kernels = sum(
        leaf.size
        for path, leaf in trees.flatten(setup.variables.params).items()
        if path.endswith("kernel") or path.startswith("head")
    )
    assert 8 * kernels <= masked["state_bytes"] <= 8 * kernels + 16
    assert figures["forms"]["method"]["delta_bytes"] < 16 * k + 10_000


def test_a_new_mask_of_the_same_counts_compiles_nothing():
    backbone = registry.load("backbones", {"name": "mlp", "image_size": 8})
    variables = jax.tree.map(np.asarray, backbone.init(jax.random.key(0), 3))
    where = devices.choose("shard_map", jax.devices()[:1])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    examples = dataset.resident(images, rng.integers(0, 3, 40).astype(np.int32))
    feed = batches.training(examples, batches.rows(8, 1), 0)
    piece = devices.spread(where, next(feed.pieces(0, 1)))
    transform = optimizer.make(clip_norm=1.0).transform(10, backbone.blocks)
    recipe = step.Recipe(backbone, losses.cross_entropy, 3, transform)
    function = devices.parallel(where, step.make_train(recipe), donate=True)

    def take(seed):
        """One step of a random mask; where it moved `hidden01/dense/kernel`."""
        draws = np.random.default_rng(seed).permutation(192 * 256).reshape(192, 256)
        path = "hidden01/dense/kernel"
        mask = trees.map_leaves(
            lambda p, leaf: draws < 500 if p == path else np.False_, variables.params
        )
        plan = partition.make(variables, backbone.blocks, Selection(mask))
        flat = trees.flatten(variables.params)
        given = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
        fixed = step.Fixed(given[1], plan.positions, feed.resident)
        state, fixed = devices.replicate(where, (given[0], fixed))
        before = np.asarray(state.partial[path])
        with counted() as programs:
            state, _ = function(state, fixed, piece)
        return programs, (np.asarray(state.partial[path]) != before), draws < 500

    for seed, expected in ((1, 1), (2, 0)):
        programs, moved, draws = take(seed)
        assert len(programs) == expected
        assert moved.any() and not (moved & ~draws).any()
