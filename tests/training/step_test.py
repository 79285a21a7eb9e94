"""The step itself: what is differentiated, averaged, and kept in which type."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import steps

from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import batches, dataset
from subtune_jax.optim import partition
from subtune_jax.training import step
from subtune_jax.training.results import NonFiniteLossError
from subtune_jax.training.run import fit

CLASSES = 3


def network():
    backbone = registry.load("backbones", {"name": "mlp", "image_size": 8})
    variables = backbone.init(jax.random.key(0), CLASSES)
    return backbone, jax.tree.map(np.asarray, variables)


def examples():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    return dataset.resident(images, rng.integers(0, CLASSES, 40).astype(np.int32))


def some(params, share=0.3):
    rng = np.random.default_rng(1)
    return trees.map_leaves(
        lambda path, leaf: (
            rng.random(leaf.shape) < share
            if path.endswith("kernel") and not path.startswith("head")
            else np.False_
        ),
        params,
    )


def run(transform, last, **choices):
    backbone, variables = network()
    plan = partition.make(variables, backbone.blocks, Selection(some(variables.params)))
    recipe = step.Recipe(backbone, losses.cross_entropy, CLASSES, transform, **choices)
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = devices.choose("auto", jax.devices()[:1])
    feed = batches.training(examples(), batches.rows(16, 1), 0)
    trainer = steps.compiled(where, recipe, begin, plan.positions, feed)
    states = []
    keep = lambda done, state, m: states.append(devices.to_host(state))  # noqa: E731
    fit(trainer, last, watch=keep)
    return plan, variables, states


def gradient_float64(variables, feed_step):
    """Gradient of the mean loss by central differences is slow; by jax, in float64."""
    backbone, _ = network()
    feed = batches.training(examples(), batches.rows(16, 1), 0)
    piece = next(feed.pieces(feed_step, feed_step + 1))
    images = examples().inputs[piece["index"]].astype(np.float64)
    labels = examples().labels[piece["index"]]

    def loss(params):
        x = (images - 127.5) / 127.5
        for block in backbone.blocks[:-1]:
            dense, norm = params[block]["dense"], params[block]["norm"]
            stats = variables.stats[block]["norm"]
            x = x.reshape(len(x), -1) @ dense["kernel"]
            x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
            x = jnp.maximum(x * norm["scale"] + norm["bias"], 0)
        logits = x @ params["head"]["kernel"] + params["head"]["bias"]
        chosen = jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
        return -chosen.mean()

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), variables.params)
        return jax.tree.map(np.asarray, jax.grad(loss)(wide))


def test_one_step_is_one_step_of_the_written_out_network():
    plan, variables, states = run(optax.sgd(0.5), 1)
    grads = trees.flatten(gradient_float64(variables, 0))
    for path, value in states[0].values.items():
        slope = grads[path]
        if path in plan.positions:
            slope = slope.reshape(-1)[plan.positions[path]]
        expected = plan.values[path] - 0.5 * slope
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_partial_leaves_hold_their_values_in_place():
    plan, variables, states = run(optax.adam(1e-2), 3)
    before = trees.flatten(variables.params)
    for path, leaf in states[-1].partial.items():
        where = plan.positions[path]
        np.testing.assert_array_equal(trees.take(leaf, where), states[-1].values[path])
        rest = np.setdiff1d(np.arange(leaf.size), where)
        np.testing.assert_array_equal(
            leaf.reshape(-1)[rest], before[path].reshape(-1)[rest]
        )


def test_the_average_follows_its_definition():
    plan, _, states = run(optax.sgd(0.5), 4, ema=0.9)
    for path, first in plan.values.items():
        average = first.astype(np.float64)
        for state in states:
            average = 0.9 * average + 0.1 * state.values[path]
        np.testing.assert_allclose(states[-1].ema[path], average, rtol=1e-5, atol=1e-7)


def test_bfloat16_computes_with_float32_masters():
    """Updates far below the resolution of bfloat16 add up in the masters."""
    plan, variables, states = run(optax.sgd(1e-4), 5, dtype=jnp.bfloat16)
    wide = run(optax.sgd(1e-4), 5)[2]
    for path, value in states[-1].values.items():
        assert value.dtype == np.float32
        moved, expected = value - plan.values[path], wide[-1].values[path]
        expected = expected - plan.values[path]
        assert np.abs(moved).max() > 0
        close = np.linalg.norm(moved - expected) / np.linalg.norm(expected)
        assert close < 0.15, path  # rounded masters would not have moved at all
    before = trees.flatten(variables.params)
    for path, leaf in states[-1].partial.items():
        assert leaf.dtype == jnp.bfloat16
        rounded = np.asarray(jnp.asarray(before[path], jnp.bfloat16))
        rest = np.setdiff1d(np.arange(leaf.size), plan.positions[path])
        np.testing.assert_array_equal(leaf.reshape(-1)[rest], rounded.reshape(-1)[rest])


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteLossError, match=r"the loss of step \d+ is nan"):
        run(optax.sgd(1e30), 4)
