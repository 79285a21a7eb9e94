"""What is not selected never moves: every method, every network, bit for bit."""

import importlib

import jax
import numpy as np
import pytest

from subtune_jax import augment, data, devices, loop, losses, names, optimizer, trees
from subtune_jax import plan as plans
from subtune_jax import step as steps
from subtune_jax.contracts import Evidence

STEPS = 50
CLASSES = 3


def tiny(package, name):
    module = importlib.import_module(f"subtune_jax.{package}.{name}")
    return module.make(**module.TINY)


NETWORKS, METHODS = names.plugins("backbones"), names.plugins("methods")
# One of each kind of selection on every network; each of the others on one of them.
KINDS = ("blocks", "gps", "lora", "magnitude", "s2ft")
TRAINED = ("last", "magnitude")  # with batch statistics that move


def runs():
    """(network, method, batch_norm), each network's together."""
    for place, network in enumerate(NETWORKS):
        for number, method in enumerate(METHODS):
            if method in KINDS or number % len(NETWORKS) == place:
                yield network, method, "frozen"
            if method in TRAINED:
                yield network, method, "trained"


@pytest.fixture(scope="module")
def network(request):
    backbone = tiny("backbones", request.param)
    init = jax.jit(backbone.init, static_argnums=1)
    variables = init(jax.random.key(0), CLASSES)
    rng = np.random.default_rng(0)

    def odd_zeros(leaf):  # -0.0 is what an update of +0.0 would turn into 0.0
        leaf = np.array(leaf)
        leaf.reshape(-1)[:: max(1, leaf.size // 3)] = -0.0
        return leaf

    images = rng.integers(0, 255, (24, *backbone.input_shape), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, 24).astype(np.int32)
    params = jax.tree.map(odd_zeros, variables.params)
    stats = jax.tree.map(np.array, variables.stats)
    return backbone, variables._replace(params=params, stats=stats), images, labels


def evidence(network):
    backbone, variables, images, labels = network

    def loss_fn(params, batch):
        logits, _ = backbone.apply(params, variables.stats, batch["inputs"])
        targets = jax.nn.one_hot(batch["labels"], CLASSES)
        return losses.cross_entropy(logits, targets).mean()

    def batches(count):
        for _ in range(count):
            yield {"inputs": images[:8] / 255.0, "labels": labels[:8]}

    return Evidence(variables.params, backbone.blocks, loss_fn, batches)


def trained(network, plan, name):
    """All parameters and statistics after training, as the devices hold them."""
    backbone, variables, images, labels = network
    chosen = optimizer.make(
        name, learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, warmup_steps=5
    )
    recipe = steps.Recipe(
        backbone=backbone,
        loss=losses.cross_entropy,
        classes=CLASSES,
        transform=chosen.transform(STEPS, backbone.blocks),
        training=plan.training,
        augment=augment.make(flip=True),
        additive=plan.additive,
    )
    flat = trees.flatten(variables.params)
    begin = steps.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = devices.choose("auto", jax.devices()[:1])
    feed = data.training(
        data.resident(images, labels), data.rows(8, 1), 0, recipe.augment
    )
    trainer, state = loop.compile_training(where, recipe, begin, plan.positions, feed)
    state, _ = loop.fit(trainer, state, 0, STEPS, lambda done, metrics: None)
    held = {**trainer.fixed.frozen, **state.values, **state.partial}
    return devices.to_host(held), devices.to_host(state.stats)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


@pytest.mark.parametrize(
    ("network", "method", "batch_norm"), list(runs()), indirect=["network"]
)
def test_unselected_elements_never_move(network, method, batch_norm):
    backbone, variables, *_ = network
    selection = tiny("methods", method).init(evidence(network))
    plan = plans.make(variables, backbone.blocks, selection, batch_norm=batch_norm)
    params, stats = trained(network, plan, "sgd" if method == "random" else "adamw")
    before, mask = trees.flatten(variables.params), trees.flatten(plan.mask)
    moved = 0
    for path, old in before.items():
        changed = bits(params[path]) != bits(old)
        still = ~np.broadcast_to(mask[path], old.shape)
        assert not changed[still.reshape(changed.shape)].any(), path
        moved += changed.sum()
    for name in set(plan.values) - set(before):  # arrays beside the leaves
        moved += (bits(params[name]) != bits(plan.values[name])).sum()
    assert moved > 0.5 * sum(np.size(value) for value in plan.values.values())
    for path, old in trees.flatten(variables.stats).items():
        same = np.array_equal(bits(trees.flatten(stats)[path]), bits(old))
        assert same == (path.split("/")[0] not in plan.training), path
