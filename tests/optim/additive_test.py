"""Added arrays: merged, they are the unmerged form of each paper."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import steps

from subtune_jax import delta
from subtune_jax.commands import configs
from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.core.method import Additive, Evidence, Selection
from subtune_jax.data import batches, dataset
from subtune_jax.optim import additive, optimizer, partition
from subtune_jax.selection import masks
from subtune_jax.study.benches import method
from subtune_jax.training import (
    checkpoint,
    prediction,
    program,
    report_data,
    run,
    setup,
    step,
    tuned,
)
from subtune_jax.training.settings import with_changes

CLASSES, WIDTH, HEADS, PATCH, EPSILON, RATE = 3, 16, 2, 8, 1e-6, 0.1
VIT = {"name": "vit", "variant": (WIDTH, 2, HEADS, PATCH, False), "image_size": 16}
EVERYWHERE = ".*kernel"
METHODS = {
    "lora": {"rank": 3, "alpha": 5.0},
    "lora everywhere": {"rank": 2, "alpha": 3.0, "among": EVERYWHERE},
    "ssf": {},
    "ia3": {},
}
# Whole runs of two forms of merging; the others when there is time.
RUNS = [
    name if name in ("lora", "ssf") else pytest.param(name, marks=pytest.mark.slow)
    for name in METHODS
]


@functools.cache
def network():
    more = {"gelu": "exact", "epsilon": EPSILON}
    backbone = registry.load("backbones", VIT | more)
    drawn = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), CLASSES)
    rng = np.random.default_rng(2)
    noisy = lambda leaf: np.asarray(leaf + rng.normal(0, 0.1, leaf.shape), np.float32)  # noqa: E731
    return backbone, jax.tree.map(noisy, drawn)  # biases that are not zero


def evidence(backbone, variables, seed=3):
    return Evidence(variables.params, backbone.blocks, None, None, seed=seed)


def load(method):
    return registry.load("methods", {"name": method.split()[0], **METHODS[method]})


def examples():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, 8).astype(np.int32)


def erf(xp, x):
    return jax.lax.erf(x) if xp is jnp else np.vectorize(math.erf)(x)


def literal(xp, method, base, values, images):
    """The ViT written out, each method as its paper has it, beside frozen weights."""

    def get(name):
        return values.get(name)

    def after(path, slope, x, y):
        """What becomes of the output `y` of an operation, of input `x`."""
        a, b = get(f"{path}/{slope}+a"), get(f"{path}/{slope}+b")
        if a is not None:
            scale = METHODS[method]["alpha"] / METHODS[method]["rank"]
            y = y + scale * ((x @ a) @ b)
        gamma = get(f"{path}/{slope}+gamma")
        if gamma is not None:
            y = y * gamma + get(f"{path}/bias+beta")
        factors = get(f"{path}/{slope}+outputs")
        return y if factors is None else y * factors

    def dense(path, x):
        factors = get(f"{path}/kernel+inputs")
        x = x if factors is None else x * factors
        kernel = base[f"{path}/kernel"]
        y = x @ kernel.reshape(-1, kernel.shape[-1]) + base[f"{path}/bias"]
        return after(path, "kernel", x, y)

    def norm(path, x):
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / xp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        y = normal * base[f"{path}/scale"] + base[f"{path}/bias"]
        return after(path, "scale", x, y)

    def attend(block, x):
        query, key, value = (
            dense(f"{block}/attn/{part}", x) for part in ("query", "key", "value")
        )
        read, size = [], WIDTH // HEADS
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            scores = query[..., own] @ key[..., own].swapaxes(1, 2) / size**0.5
            odds = xp.exp(scores - scores.max(-1, keepdims=True))
            read.append(odds / odds.sum(-1, keepdims=True) @ value[..., own])
        return dense(f"{block}/attn/out", xp.concatenate(read, -1))

    def head(x):
        return x @ values["head/kernel"] + values["head/bias"]

    x = (images - 127.5) / 127.5
    cut = [
        x[:, i : i + PATCH, j : j + PATCH].reshape(len(x), 1, -1)
        for i in (0, PATCH)
        for j in (0, PATCH)
    ]
    tokens = dense("embed", xp.concatenate(cut, 1))
    first = xp.broadcast_to(base["embed/token"], (len(x), 1, WIDTH))
    x = xp.concatenate([first, tokens], 1) + base["embed/position"]
    for block in ("block01", "block02"):
        x = x + attend(block, norm(f"{block}/norm1", x))
        hidden = dense(f"{block}/fc1", norm(f"{block}/norm2", x))
        hidden = 0.5 * hidden * (1 + erf(xp, hidden / 2**0.5))
        x = x + dense(f"{block}/fc2", hidden)
    return head(norm("norm", x)[:, 0])


def wide(flat):
    return {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}


def selected(method):
    backbone, variables = network()
    selection = load(method).init(evidence(backbone, variables))
    return backbone, variables, partition.make(variables, backbone.blocks, selection)


def fit(method, count, where=None, **choices):
    """`count` steps of plain gradient descent on all examples; state and logits."""
    backbone, variables, plan = selected(method)
    recipe = step.Recipe(
        backbone,
        losses.cross_entropy,
        CLASSES,
        optax.sgd(RATE),
        additive=plan.additive,
        **choices,
    )
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = where or devices.choose("auto", jax.devices()[:1])
    seen = dataset.resident(*examples())
    rows = batches.rows(8, where.size)
    feed = batches.training(seen, rows, 0)
    trainer = steps.compiled(where, recipe, begin, plan.positions, feed)
    state = run.fit(trainer, count).state
    predict = prediction.forward(where, recipe, rows)
    logits = predict(state, trainer.fixed, seen)
    values = devices.to_host(state.values)
    return variables, plan, values, devices.to_host(trainer.fixed.frozen), logits


@pytest.mark.parametrize("method", [m for m in METHODS if m != "ssf"])
def test_training_starts_at_the_base(method):
    backbone, variables, plan = selected(method)
    flat = trees.flatten(variables.params)
    merged = additive.merge(plan.additive, flat, plan.additive.values)
    for path in plan.additive.paths:
        np.testing.assert_array_equal(merged[path], flat[path])
    logits = fit(method, 0)[-1]
    apply = jax.jit(lambda x: backbone.apply(variables.params, variables.stats, x)[0])
    images = (examples()[0].astype(np.float32) - 127.5) / 127.5
    np.testing.assert_allclose(logits, apply(images), rtol=1e-5, atol=1e-6)


def test_ssf_starts_near_the_base():
    *_, plan = selected("ssf")
    for what, mean in (("gamma", 1), ("beta", 0)):
        drawn = [v for name, v in plan.additive.values.items() if name.endswith(what)]
        drawn = np.concatenate(drawn)
        assert abs(drawn.mean() - mean) < 4 * 0.02 / drawn.size**0.5
        assert drawn.std() == pytest.approx(0.02, rel=0.2)


def test_lora_draws_one_factor_and_starts_the_other_at_zero():
    *_, plan = selected("lora everywhere")
    for name, array in plan.additive.values.items():
        if name.endswith("+b"):
            assert not array.any()
        else:
            expected = (3 * len(array)) ** -0.5
            assert array.std() == pytest.approx(expected, rel=0.5), name


@pytest.mark.parametrize("method", METHODS)
def test_after_training_the_network_is_the_unmerged_form(method):
    variables, plan, values, _, logits = fit(method, 20)
    base = trees.flatten(variables.params)
    far = 0.0
    for name, array in plan.additive.values.items():
        far = max(far, np.abs(values[name] - array).max())
    assert far > 0.01  # it did train
    expected = literal(
        np, method, wide(base), wide(values), wide({"": examples()[0]})[""]
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "mode"),
    [*((method, "one") for method in METHODS)]
    + [("lora", mode) for mode in ("pieces", "pmap", "shard_map")],
)
def test_training_is_that_of_the_unmerged_form(method, mode):
    where = devices.choose(mode) if mode in ("pmap", "shard_map") else None
    parts = 4 if mode == "pieces" else 1
    variables, plan, found, frozen, _ = fit(method, 20, where, accumulate_steps=parts)
    base = {p: jnp.asarray(x) for p, x in trees.flatten(variables.params).items()}
    images, labels = examples()
    targets = jax.nn.one_hot(labels, CLASSES)

    @jax.jit
    def slope(values):
        def loss(values):
            logits = literal(jnp, method, base, values, images.astype(np.float32))
            return losses.cross_entropy(logits, targets).mean()

        return jax.grad(loss)(values)

    values = {name: jnp.asarray(array) for name, array in plan.values.items()}
    for _ in range(20):
        grads = slope(values)
        values = {name: v - RATE * grads[name] for name, v in values.items()}
    assert found.keys() == values.keys()
    for name, array in values.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=2e-5)
    for path, leaf in frozen.items():
        np.testing.assert_array_equal(leaf, trees.flatten(variables.params)[path])


def test_convolutions_are_read_as_matrices_and_rescaled_by_channels():
    rng = np.random.default_rng(0)
    params = {"stem": {"conv": {"kernel": rng.normal(size=(3, 2, 4, 5))}}, "head": {}}
    params = jax.tree.map(np.float32, params)
    seen = Evidence(params, ("stem", "head"), None, None)
    (kernel,) = jax.tree.leaves(params)
    path = "stem/conv/kernel"

    def merged(name, **arguments):
        added = (
            registry.load("methods", {"name": name, **arguments}).init(seen).additive
        )
        values = {n: rng.normal(size=v.shape) for n, v in added.values.items()}
        return added.merge({path: kernel}, values)[path], values

    found, values = merged("lora", rank=2, alpha=6.0, among=EVERYWHERE)
    for i, j, k, o in np.ndindex(kernel.shape):
        row = (i * 2 + j) * 4 + k
        change = sum(
            values[f"{path}+a"][row, r] * values[f"{path}+b"][r, o] for r in range(2)
        )
        assert found[i, j, k, o] == pytest.approx(kernel[i, j, k, o] + 3.0 * change)
    found, values = merged("ia3", outputs=EVERYWHERE, inputs=EVERYWHERE)
    for i, j, k, o in np.ndindex(kernel.shape):
        factors = values[f"{path}+inputs"][k] * values[f"{path}+outputs"][o]
        assert found[i, j, k, o] == pytest.approx(kernel[i, j, k, o] * factors)
    found, values = merged("ssf")
    assert set(values) == {f"{path}+gamma"}  # nothing to shift
    np.testing.assert_allclose(found, kernel * values[f"{path}+gamma"])


def expected_count(method, flat):
    """Added elements, from the shapes alone."""
    total = 0
    for path, leaf in flat.items():
        if path.startswith("head/"):
            continue
        bias = f"{path.rsplit('/', 1)[0]}/bias" in flat
        inputs, outputs = leaf.size // leaf.shape[-1], leaf.shape[-1]
        if method == "lora" and re.search("(query|value)/kernel$", path):
            total += 3 * (inputs + outputs)
        if method == "lora everywhere" and path.endswith("kernel"):
            total += 2 * (inputs + outputs)
        if method == "ssf" and path.endswith(("kernel", "scale")):
            total += outputs * (1 + bias)
        if method == "ia3" and re.search("(key|value)/kernel$", path):
            total += outputs
        if method == "ia3" and path.endswith("fc2/kernel"):
            total += inputs
    return total


@pytest.mark.parametrize("method", METHODS)
def test_added_elements_count_as_selected(method):
    _, variables, plan = selected(method)
    flat = trees.flatten(variables.params)
    number = expected_count(method, flat)
    head = sum(leaf.size for path, leaf in flat.items() if path.startswith("head/"))
    base = sum(leaf.size for leaf in flat.values()) - head
    assert number > 0
    assert plan.counts == {
        "selected": number,
        "extras": 0,
        "head": head,
        "base": base,
        "fraction": number / base,
    }
    assert sum(value.size for value in plan.values.values()) == number + head
    assert masks.count(variables.params, plan.mask) == head


def test_a_mask_may_go_with_added_arrays_even_on_the_same_leaves():
    backbone, variables, plain = selected("lora")
    path = "block02/attn/value/kernel"
    chosen = np.zeros((WIDTH, WIDTH), bool)
    chosen[:, 1] = True
    selection = Selection(
        masks.fill(variables.params, {path: chosen}), additive=plain.additive
    )
    plan = partition.make(variables, backbone.blocks, selection)
    assert plan.counts["selected"] == plain.counts["selected"] + WIDTH
    assert plan.values.keys() == plain.values.keys() | {path}
    recipe = step.Recipe(
        backbone, losses.cross_entropy, CLASSES, optax.sgd(1.0), additive=plan.additive
    )
    flat = trees.flatten(variables.params)
    begin = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
    where = devices.choose("auto", jax.devices()[:1])
    feed = batches.training(dataset.resident(*examples()), batches.rows(8, 1), 0)
    trainer = steps.compiled(where, recipe, begin, plan.positions, feed)
    state = run.fit(trainer, 3).state
    moved = np.asarray(state.partial[path]) != flat[path]
    assert moved[:, 1].all() and not moved[:, [0, *range(2, WIDTH)]].any()


def test_nothing_below_the_first_touched_block_is_differentiated():
    backbone, variables = network()
    selector = registry.load(
        "methods", {"name": "lora", "rank": 1, "among": "block02/attn/value/kernel"}
    )
    selection = selector.init(evidence(backbone, variables))
    plan = partition.make(variables, backbone.blocks, selection, batch_norm="trained")
    assert (plan.start, plan.training) == ("block02", ("block02", "head"))


def test_decay_and_depth_are_those_of_the_block_and_the_whole_name():
    blocks = ("embed", "block01", "block02", "norm", "head")
    name = "block01/attn/query/kernel+a"
    plain = optimizer.make(weight_decay=0.1, layer_decay=0.5)
    assert plain.treatment(name, blocks) == (False, 0.125)
    both = optimizer.make(weight_decay=0.1, decay=r".*kernel([+][ab])?")
    assert both.treatment(name, blocks) == (True, 1.0)
    assert both.treatment("block01/attn/query/kernel", blocks) == (True, 1.0)
    assert not both.treatment("block01/attn/query/bias+beta", blocks)[0]
    transform = plain.transform(5, blocks)
    values = {name: jnp.ones((2, 2)), "head/bias": jnp.ones(2)}
    updates, _ = transform.update(values, transform.init(values), values)
    ratio = updates[name][0, 0] / updates["head/bias"][0]
    assert ratio == pytest.approx(0.125)


def config(method, **more):
    given = {
        "task": {"name": "structured", "examples": 120, "image_size": 16},
        "backbone": VIT,
        "method": {"name": method.split()[0], **METHODS[method]},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1, "probe_steps": 3},
        "batch_size": 16,
        "train_steps": 9,
        "save_steps": 4,
        "report": False,
    }
    return with_changes(configs.complete(given), more)


def outcome_of(folder):
    result = json.loads((folder / "result.json").read_text())
    base = registry.load("backbones", result["config"]["backbone"]).load()
    tree = jax.tree.map(np.asarray, base._asdict())
    return result, tree, delta.load(folder / "delta", tree)


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run.run(config(request.param), folder)
    return request.param, folder


def test_a_run_changes_touched_leaves_and_nothing_else(finished):
    method, folder = finished
    result, base, tuned = outcome_of(folder)
    assert result["frozen_unchanged"] is True
    flat, after = trees.flatten(base["params"]), trees.flatten(tuned["params"])
    *_, plan = selected(method)
    assert after.keys() - flat.keys() == {"head/kernel", "head/bias"}
    for path, old in flat.items():
        new = after[path]
        same = np.array_equal(new.view(np.uint32), old.view(np.uint32))
        # A zero bias that is rescaled stays one.
        fixed = method == "ia3" and path.endswith("bias")
        assert same == (path not in plan.additive.paths) or fixed, path
        if method.startswith("lora") and path in plan.additive.paths:
            change = (new.astype(np.float64) - old).reshape(-1, new.shape[-1])
            sizes, rank = np.linalg.svd(change)[1], METHODS[method]["rank"]
            assert sizes[rank] < 1e-4 * sizes[0]


def test_the_optimiser_holds_eight_bytes_an_added_element(finished):
    result = outcome_of(finished[1])[0]
    counts = result["trainable"]
    trained = counts["selected"] + counts["head"]
    held = result["cost"]["optimizer_bytes"]
    assert 8 * trained <= held <= 8 * trained + 16  # the rest counts steps


def test_an_interrupted_run_resumes_to_the_same_bits(finished, tmp_path, monkeypatch):
    method, folder = finished
    save = checkpoint.save

    def killed(where, step, state):
        save(where, step, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.run(config(method), tmp_path / "half")
    monkeypatch.setattr(checkpoint, "save", save)
    assert not (tmp_path / "half" / "result.json").exists()
    run.run(config(method), tmp_path / "half")
    one, two = outcome_of(folder), outcome_of(tmp_path / "half")
    jax.tree.map(np.testing.assert_array_equal, one[2], two[2])
    assert one[0]["metrics"] == two[0]["metrics"]


@pytest.mark.parametrize("choices", [{}, {"optimizer": {"ema": 0.8}}])
@pytest.mark.parametrize("method", RUNS)
def test_what_is_shipped_is_what_was_evaluated(method, choices):
    made = setup.prepare(config(method, **choices))
    selection = made.selector.init(evidence(made.backbone, made.variables))
    plan = partition.make(made.variables, made.backbone.blocks, selection)
    ready = program.build(made, plan, made.optimizer, 6)
    state = run.fit(ready, 6).state
    after = tuned.variables(made, ready, state)
    assert tuned.frozen_unchanged(made, ready, state, after)
    images = made.validation.read(np.arange(len(made.validation.labels)))
    seen = (images.astype(np.float32) - 127.5) / 127.5
    shipped = made.backbone.apply(after.params, after.stats, seen)[0]
    found = program.logits(ready, state, made.validation)
    np.testing.assert_allclose(found, shipped, rtol=1e-4, atol=1e-5)
    after.params["block01"]["norm1"]["scale"][0] += 1  # ssf may change it, others not
    allowed = tuned.frozen_unchanged(made, ready, state, after)
    assert allowed == (method == "ssf")
    after.params["embed"]["token"][0] += 1
    assert not tuned.frozen_unchanged(made, ready, state, after)


def test_shares_count_added_elements_by_block():
    made = setup.prepare(config("lora"))
    selection = made.selector.init(evidence(made.backbone, made.variables))
    plan = partition.make(made.variables, made.backbone.blocks, selection)
    ready = program.build(made, plan, made.optimizer, 6)
    shares = report_data.shares(made, ready)
    assert {block: share[0] for block, share in shares.items()} == {
        "embed": 0,
        "block01": 2 * 3 * 2 * WIDTH,
        "block02": 2 * 3 * 2 * WIDTH,
        "norm": 0,
        "head": (WIDTH + 1) * len(made.task.classes),
    }


@pytest.mark.slow
def test_the_bench_of_a_method_leaves_masked_updates_out():
    found = method.run(setup.prepare(config("lora")), 1)
    assert found["updates"] == {}
    assert found["forms"]["method"]["trained"] < found["forms"]["full"]["trained"]


KERNEL = "block01/attn/query/kernel"
WRONG = {
    "no leaf": (
        {},
        ("block01/atn/query/kernel",),
        "no leaf 'block01/atn/query/kernel'",
    ),
    "the head": ({}, ("head/kernel",), "no leaf 'head/kernel' of the base"),
    "another name": ({"a": np.float32}, (KERNEL,), "'a' is no leaf merged into"),
    "a leaf": ({KERNEL: np.float32}, (KERNEL,), "is no leaf merged into"),
    "float64": ({f"{KERNEL}+a": np.float64}, (KERNEL,), "float64; additive arrays are"),
    "shape": ({f"{KERNEL}+a": np.float32}, (KERNEL,), r"makes '.*' \(2, 16, 16\); it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_added_arrays_that_do_not_fit_are_refused(case):
    given, paths, message = WRONG[case]
    _, variables = network()
    values = {name: np.ones((2, 1, 1), kind) for name, kind in given.items()}
    merge = lambda leaves, values: {  # noqa: E731
        path: leaves[path] * values[f"{path}+a"] for path in leaves
    }
    with pytest.raises(ValueError, match=message) as error:
        additive.check(variables.params, Additive(values, merge, paths))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_network_without_attention_is_told_what_it_has(method):
    backbone = registry.load("backbones", {"name": "mlp", "image_size": 8})
    init = jax.jit(backbone.init, static_argnums=1)
    variables = init(jax.random.key(0), CLASSES)
    with pytest.raises(ValueError, match="nearest of .*'hidden01/dense/kernel'"):
        load(method).init(evidence(backbone, variables))
