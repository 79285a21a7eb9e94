"""The sparse step: the numbers of `masked`, the cost of what is selected."""

import functools

import jax
import jax.numpy as jnp
import noise
import numpy as np
import optax
import pytest
import steps

from subtune_jax import compact, masked, scores
from subtune_jax.backbones import vit
from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import batches, dataset
from subtune_jax.optim import optimizer, partition
from subtune_jax.selection import choose, masks
from subtune_jax.sparse_step import selected
from subtune_jax.training import step

STEPS = 100
NETWORKS = registry.plugins("backbones")
LONG = ("efficientnet_lite0", "resnet")  # compile long


@functools.cache
def problem(name):
    backbone = noise.network(name)
    variables = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3)
    rng = np.random.default_rng(0)
    images = np.stack(np.split(noise.entering(backbone, 16), 4))
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (4, 4))]
    pairs = zip(images, targets, strict=True)
    batches = [(jnp.asarray(image), jnp.asarray(target)) for image, target in pairs]

    def loss(params, batch):
        logits = backbone.apply(params, variables.stats, batch[0])[0]
        return losses.cross_entropy(logits, batch[1]).mean()

    return loss, variables.params, batches


def gps_like(params, seed=0):
    """One random input of each neuron, a tenth of an embedding, all biases."""
    draws = scores.random(params, seed)

    def leaf(path, draw):
        if path.endswith("bias"):
            return np.True_
        if not path.endswith("kernel") or path.startswith("stem"):
            return choose.top_per_array(draw, 0.1)
        return choose.top_per_neuron(draw, 1)

    return trees.map_leaves(leaf, draws)


def adam():
    return optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(3e-4, weight_decay=0.1)
    )


def follow(loss, params, batches, tx, steps_count=STEPS):
    state, step = tx.init(params), jax.jit(lambda *given: _dense(loss, tx, *given))
    for number in range(steps_count):
        params, state = step(params, state, batches[number % len(batches)])
    return params


def _dense(loss, tx, params, state, batch):
    updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
    return optax.apply_updates(params, updates), state


def sparse_step(loss, tx):
    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, values, state, chosen, batch):
        value, grads = selected.value_and_grad(loss, params, chosen, batch)
        updates, state = tx.update(grads, state, values)
        values = optax.apply_updates(values, updates)
        return selected.put(params, chosen, values), values, state, value

    return step


def sparsely(loss, params, batches, mask, tx, step=None):
    params = jax.tree.map(jnp.array, params)  # they are given away
    chosen = selected.find(params, mask)
    values = selected.values(params, chosen)
    state, step = tx.init(values), step or sparse_step(loss, tx)
    for number in range(STEPS):
        batch = batches[number % len(batches)]
        params, values, state, _ = step(params, values, state, chosen, batch)
    return params


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NETWORKS],
)
def test_masked_compact_and_sparse_agree_over_a_hundred_steps(name):
    loss, params, batches = problem(name)
    mask = gps_like(params)
    one = follow(loss, params, batches, masked(adam(), mask))
    two = follow(loss, params, batches, compact(adam(), mask))
    three = sparsely(loss, params, batches, mask, adam())
    moved = 0.0
    for path, flags in trees.flatten(masks.expand(params, mask)).items():
        base, *tuned = (
            np.asarray(trees.flatten(tree)[path]) for tree in (params, one, two, three)
        )
        for other in tuned:
            np.testing.assert_array_equal(
                other.view(np.uint32)[~flags], base.view(np.uint32)[~flags]
            )
            moved = max(moved, np.abs(other - base).max())
            # Adam divides by the root of a gradient: of one that is zero but for
            # rounding, as that of a key's bias, the sign is noise and so is the update.
            if not path.endswith("key/bias"):
                difference = np.abs(other - tuned[0])[flags]
                assert difference.size == 0 or difference.max() < 2e-4, path
    assert moved > 1e-2


def test_a_new_mask_of_the_same_size_compiles_nothing_again():
    loss, params, batches = problem("vit")
    step = sparse_step(loss, adam())
    ends = [
        sparsely(loss, params, batches[:1], gps_like(params, seed), adam(), step)
        for seed in (0, 1)
    ]
    assert step._cache_size() == 1
    kernels = [end["block01"]["fc1"]["kernel"] for end in ends]
    assert np.any(np.asarray(kernels[0]) != np.asarray(kernels[1]))


def small():
    """A ViT of 1.8 M parameters whose activations are small beside them."""
    return vit.make(variant=(192, 4, 3, 8, False), image_size=16)


def trainer(mask_of, where=None, batch=8):
    backbone = small()
    variables = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3)
    variables = jax.tree.map(np.asarray, variables)
    plan = partition.make(variables, backbone.blocks, mask_of(variables.params))
    chosen = optimizer.make("adam", learning_rate=1e-3, clip_norm=1.0)
    recipe = step.Recipe(
        backbone, losses.cross_entropy, 3, chosen.transform(10, backbone.blocks)
    )
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = where or devices.choose("auto", jax.devices()[:1])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (16, *backbone.input_shape), dtype=np.uint8)
    examples = dataset.resident(images, rng.integers(0, 3, 16).astype(np.int32))
    feed = batches.training(examples, batches.rows(batch, where.size), 0)
    ready = steps.compiled(where, recipe, begin, plan.positions, feed)
    return plan, ready, ready.state


def gps(params):
    kernels = masks.find(params, r".*kernel", ("head",))
    draws = scores.random(kernels, 0)
    mask = masks.fill(params, choose.top_per_neuron(draws, 1))
    return Selection(mask)


def everything(params):
    return Selection(masks.from_regex(params, ".*", skip=("head",)))


def peak(ready):
    """Bytes of arguments, of outputs in buffers of their own, and between the two."""
    memory = ready.first_step.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + new


def test_the_step_needs_less_memory_by_nine_tenths_of_gradients_and_moments():
    full, ready, _ = trainer(everything)
    n = sum(np.size(value) for value in full.values.values())
    few, light, state = trainer(gps)
    assert peak(light) <= peak(ready) - 0.9 * 12 * n
    k = sum(np.size(value) for value in few.values.values())
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))
    assert held <= 1.05 * 8 * k
    assert k < n / 100


def test_of_one_input_a_neuron_the_weight_gradients_cost_nothing():
    _, ready, _ = trainer(everything)
    _, light, _ = trainer(gps)
    assert light.flops < 0.70 * ready.flops


def test_positions_of_a_plan_are_arranged_for_their_gradients():
    plan, _, _ = trainer(gps)
    shapes = {path: where.shape for path, where in plan.positions.items()}
    assert shapes["block01/fc1/kernel"] == (768, 1)
    assert shapes["embed/kernel"] == (192, 1)


def test_arranged_positions_are_the_same_positions():
    rng = np.random.default_rng(0)
    for shape in ((6, 5), (3, 3, 2, 4), (4, 2, 3)):
        mask = choose.top_per_neuron(rng.random(shape), 2)
        where = np.flatnonzero(mask).astype(np.int32)
        found = trees.arrange(where, shape)
        assert found.ndim == 2 and found.size == where.size
        np.testing.assert_array_equal(np.sort(found.reshape(-1)), where)
        assert (found % len(found) == np.arange(len(found))[:, None]).all()
        assert (np.diff(found, axis=1) > 0).all()
        uneven = np.setdiff1d(np.arange(mask.size), where)[:7].astype(np.int32)
        assert trees.arrange(uneven, shape) is uneven


def test_whole_neurons_and_whole_inputs_are_arranged_as_slices():
    flags = np.zeros((3, 3, 2, 8), bool)
    flags[..., [1, 4, 5]] = True
    where = np.flatnonzero(flags).astype(np.int32)
    columns = trees.arrange(where, flags.shape)
    assert columns.shape == (3, 18, 1)
    np.testing.assert_array_equal(columns[1, :, 0], np.arange(18) * 8 + 4)
    flags = np.zeros((12, 5), bool)
    flags[[0, 2, 7, 8, 9]] = True
    where = np.flatnonzero(flags).astype(np.int32)
    rows = trees.arrange(where, flags.shape)
    assert rows.shape == (5, 1, 5)
    np.testing.assert_array_equal(rows[2, 0], 7 * 5 + np.arange(5))


def test_many_inputs_of_each_neuron_are_gathered_from_the_product():
    mask = choose.top_per_neuron(np.random.default_rng(0).random((16, 4)), 5)
    where = np.flatnonzero(mask).astype(np.int32)
    assert trees.arrange(where, (16, 4)) is where


def test_an_empty_mask_is_refused():
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="the mask selects nothing"):
        selected.find(params, {"w": np.False_})


def test_bfloat16_parameters_follow_float32_values():
    params = {"w": jnp.ones((64, 1), jnp.bfloat16)}
    chosen = selected.find(params, {"w": np.arange(64)[:, None] < 4})
    values = selected.values(params, chosen)
    loss = lambda params: -jnp.sum(params["w"].astype(jnp.float32))  # noqa: E731
    for _ in range(10):  # each far below the resolution of bfloat16 at one
        grads = selected.value_and_grad(loss, params, chosen)[1]
        values = jax.tree.map(lambda v, g: v - 1e-3 * g, values, grads)
        params = selected.put(params, chosen, values)
    np.testing.assert_allclose(values["w"], 1.01, rtol=1e-6)
    assert params["w"].dtype == jnp.bfloat16
    assert float(params["w"][0, 0]) > 1.0 and float(params["w"][4, 0]) == 1.0
