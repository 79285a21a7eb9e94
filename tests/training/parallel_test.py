"""One run, any number of devices, either way of driving them: the same parameters.

The batch divides by few of the numbers of devices: padding has no weight in the loss,
the metrics (compared here too), or the batch statistics.
"""

import jax
import noise
import numpy as np
import pytest
import steps

from subtune_jax.backbones import bert
from subtune_jax.commands import configs
from subtune_jax.core import devices, flops, losses, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import augment, batches, dataset
from subtune_jax.optim import optimizer, partition
from subtune_jax.selection import choose
from subtune_jax.training import evidence, prediction, program, setup, step
from subtune_jax.training.run import fit

STEPS = 8
BATCH = 30  # divides by 1 and 2, not by 4 and 8


def examples(seed=0, count=100, size=8, classes=3):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return dataset.resident(images, rng.integers(0, classes, count).astype(np.int32))


def network():
    backbone = registry.load("backbones", {"name": "mlp", "image_size": 8})
    variables = backbone.init(jax.random.key(0), 3)
    return backbone, jax.tree.map(np.asarray, variables)


def some_of_everything(params):
    """Partial kernels of both kinds, whole norms, and the rest frozen."""
    rng = np.random.default_rng(1)

    def leaf(path, value):
        if path.startswith("head"):
            return np.False_
        if path == "hidden01/dense/kernel":  # whose gradients are sampled
            return choose.top_per_neuron(rng.random(np.shape(value)), 2)
        if path.endswith("kernel"):
            return rng.random(np.shape(value)) < 0.2
        return np.bool_(path == "hidden02/norm/scale")

    return trees.map_leaves(leaf, params)


def train(
    where, *, batch_norm="frozen", accumulate=1, ema=0.0, mixing=True, name="adamw",
    last=STEPS,
):  # fmt: skip
    """Trains for a few steps; (values, statistics, logits, metrics of all steps)."""
    backbone, variables = network()
    selection = Selection(some_of_everything(variables.params))
    plan = partition.make(variables, backbone.blocks, selection, batch_norm=batch_norm)
    chosen = optimizer.make(name, learning_rate=1e-2, weight_decay=0.1, clip_norm=1.0)
    augmenting = augment.make(crop=0.6, flip=True, mixup=0.2 if mixing else 0.0)
    recipe = steps_recipe(backbone, plan, chosen, augmenting, accumulate, ema)
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    rows = batches.rows(BATCH, where.size * accumulate)
    feed = batches.training(examples(), rows, 0, augmenting)
    trainer = steps.compiled(where, recipe, begin, plan.positions, feed)
    log = []
    state = fit(trainer, last, watch=noting(log)).state
    predict = prediction.forward(where, recipe, batches.rows(BATCH, where.size))
    logits = predict(state, trainer.fixed, examples())
    values = devices.to_host(state.values if state.ema is None else state.ema)
    return values, devices.to_host(state.stats), logits, log


def noting(log):
    """A watcher that keeps the metrics of every step."""
    return lambda done, state, m: log.append({k: float(v) for k, v in m.items()})


def steps_recipe(backbone, plan, chosen, augmenting, accumulate, ema):
    return step.Recipe(
        backbone=backbone,
        loss=losses.cross_entropy,
        classes=3,
        transform=chosen.transform(STEPS, backbone.blocks),
        training=plan.training,
        augment=augmenting,
        accumulate_steps=accumulate,
        ema=ema,
    )


def on(mode, count):
    return devices.choose(mode, jax.devices()[:count])


def assert_close(one, two, tolerance=1e-5):
    """Every array equal within `tolerance` relative to its norm."""
    flat_one, flat_two = jax.tree.leaves(one), jax.tree.leaves(two)
    assert len(flat_one) == len(flat_two)
    for a, b in zip(flat_one, flat_two, strict=True):
        difference = np.linalg.norm(np.asarray(a) - np.asarray(b))
        assert difference <= tolerance * np.linalg.norm(np.asarray(a))


@pytest.fixture(scope="module", params=["frozen", "trained"])
def reference(request):
    return request.param, train(on("shard_map", 1), batch_norm=request.param)


@pytest.mark.parametrize(
    ("mode", "count"), [("pmap", 2), ("shard_map", 4), ("pmap", 8), ("shard_map", 8)]
)
def test_any_number_of_devices_ends_at_the_same_parameters(reference, mode, count):
    batch_norm, expected = reference
    assert_close(expected, train(on(mode, count), batch_norm=batch_norm))


def train_texts(where):
    """A few steps of a mask that is drawn in each; values, masks, logits, metrics."""
    given = {
        "task": noise.task("bert", 60, 8),
        "backbone": {"name": "bert", **bert.TINY},
        "method": {"name": "child_tuning_f", "keep_ratio": 0.5},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1, "clip_norm": 1.0},
        "batch_size": 6,  # divides by 1 and 2, not by 4 and 8
        "train_steps": STEPS,
        "trunk_cache": False,
    }
    made = setup.prepare(configs.complete(given))._replace(devices=where)
    selection = made.selector.init(evidence.make(made))
    plan = partition.make(made.variables, made.backbone.blocks, selection, moves=True)
    chosen = made.optimizer, STEPS
    ready = program.build(made, plan, *chosen, selector=made.selector)
    log = []
    state = fit(ready, STEPS, watch=noting(log)).state
    logits = program.logits(ready, state, made.validation)
    # The gradient of a key's bias is zero but for rounding, and Adam divides by it.
    values = {p: x for p, x in state.values.items() if not p.endswith("key/bias")}
    values, mask = devices.to_host((values, state.moving.mask))
    return values, mask, logits, log


def test_texts_and_a_mask_that_moves_end_the_same_on_any_number_of_devices():
    values, mask, *rest = train_texts(on("shard_map", 1))
    others, same, *more = train_texts(on("pmap", 8))
    jax.tree.map(np.testing.assert_array_equal, mask, same)
    assert_close((values, rest), (others, more), 1e-4)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_the_same_devices_repeat_a_run_exactly(mode):
    first, second = (train(on(mode, 8), batch_norm="trained") for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_batch_in_pieces_makes_the_same_updates():
    whole = train(on("shard_map", 1), ema=0.5)
    assert_close(whole, train(on("shard_map", 1), accumulate=3, ema=0.5))
    assert_close(whole, train(on("pmap", 4), accumulate=2, ema=0.5))


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_what_crosses_the_network_is_the_selected_values(mode):
    backbone, variables = network()
    selection = Selection(some_of_everything(variables.params))
    plan = partition.make(variables, backbone.blocks, selection)
    chosen = optimizer.make(clip_norm=1.0, weight_decay=0.1)
    recipe = steps_recipe(backbone, plan, chosen, augment.make(), 1, 0.0)
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = on(mode, 8)
    feed = batches.training(examples(), batches.rows(BATCH, 8), 0)
    trainer = steps.compiled(where, recipe, begin, plan.positions, feed)
    k = sum(np.size(value) for value in plan.values.values())
    moved = flops.all_reduced(trainer.first_step.as_text())
    assert 4 * k <= moved <= 4 * k + 1000
