"""The benchmark command, and the promises about cost that no clock is needed for."""

import json
from unittest import mock

import jax
import numpy as np
import optax
import pytest
from compilations import counted

from subtune_jax.commands import bench as bench_command
from subtune_jax.commands import configs
from subtune_jax.core import devices, losses, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import batches, dataset
from subtune_jax.optim import optimizer, partition
from subtune_jax.study import benchmark, timing
from subtune_jax.study.benches import (
    blocks,
    method,
    profile,
    pytorch,
    selection,
    sparse,
    start,
)
from subtune_jax.training import loop, setup, step

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=200, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(64, 64))
    config.method = dict(name="random", fraction=0.1)
    config.optimizer = dict(weight_decay=0.1, clip_norm=1.0, probe_steps=5)
    config.batch_size = 24
    config.train_steps = 8
    return config
"""
NETWORKS = {
    "efficientnet_lite0": {  # its own shapes: every kind of block once, and a skip
        "image_size": 64,
        "weights": None,
        "stages": ((1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (2, 5, 2, 6, 40)),
    },
    "vit": {"variant": (64, 2, 2, 8), "image_size": 32},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def small(backbone, **more):
    """A setup on one device."""
    given = {
        "task": {"name": "structured", "examples": 64, "image_size": 32},
        "backbone": backbone,
        "method": {"name": "head"},
        "optimizer": {"clip_norm": 1.0, "weight_decay": 0.1},
        "batch_size": 8,
        **more,
    }
    where = devices.choose("shard_map", jax.devices()[:1])
    return setup.prepare(configs.complete(given))._replace(devices=where)


def test_the_command_measures_each_benchmark_once(config, tmp_path, capsys):
    command = [f"--config={config}", f"--workdir={tmp_path}", "--repeats=1"]
    chosen = "--only=network,inputs"
    assert bench_command.main([*command, chosen]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "bench.json")
    assert "holds" in err
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["machine"]["devices"] == 8
    assert list(content["benchmarks"]) == ["network", "inputs"]
    crossed = content["benchmarks"]["network"]
    for moved in crossed["all_reduced"].values():  # of this process's eight devices
        assert 4 * crossed["trained"] <= moved <= crossed["limit"]
    for result in content["benchmarks"].values():
        assert chosen in result["command"]
        assert len(result["load_average"]["before"]) == 3
        assert all({"what", "value", "limit"} < set(row) for row in result["checks"])
    with mock.patch.object(benchmark, "_measured", side_effect=AssertionError):
        assert bench_command.main([*command, chosen]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only=selektion"], "did you mean 'selection'? there are blocks, buckets"),
        (["--repeats=0"], "--repeats=0"),
        (["--config.method.name=gsp"], "no method named 'gsp'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(config, tmp_path, capsys, more, message):
    folder = tmp_path / "new"
    assert bench_command.main([f"--config={config}", f"--workdir={folder}", *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", [pytest.param("efficientnet_lite0", marks=pytest.mark.slow), "vit"]
)
def test_a_step_of_one_block_costs_what_it_needs(name):
    made = small({"name": name, **NETWORKS[name]})
    for row in blocks.run(made)["blocks"].values():
        assert 0.9 <= row["ratio"] <= blocks.LIMIT


def test_norms_and_clipping_bring_no_frozen_gradient_back():
    made = small({"name": "vit", "variant": (64, 1, 2, 8), "image_size": 32})
    plan = block_plan(made, "norm")
    plain = compiled(made, plan, optimizer.make(weight_decay=0.1))
    clipped = compiled(made, plan, optimizer.make(weight_decay=0.1, clip_norm=1.0))
    with mock.patch.object(optax.tree, "norm", lambda tree: 0.0):
        bare = compiled(made, plan, optimizer.make(weight_decay=0.1))
    assert plain.flops == pytest.approx(bare.flops, rel=0.01)
    assert clipped.flops == pytest.approx(bare.flops, rel=0.01)
    everything = Selection(trees.map_leaves(lambda p, x: np.True_, plan.mask))
    full = partition.make(made.variables, made.backbone.blocks, everything)
    assert compiled(made, full, made.optimizer).flops > 2 * bare.flops


def block_plan(made, block):
    mask = trees.map_leaves(
        lambda path, leaf: np.bool_(path.startswith(f"{block}/")),
        made.variables.params,
    )
    return partition.make(made.variables, made.backbone.blocks, Selection(mask))


def compiled(made, plan, chosen):
    flat = trees.flatten(made.variables.params)
    transform = chosen.transform(10, made.backbone.blocks)
    classes = len(made.task.classes)
    recipe = step.Recipe(made.backbone, losses.cross_entropy, classes, transform)
    begin = step.start(recipe, flat, made.variables.stats, plan.values, plan.positions)
    feed = batches.training(made.train, setup.batch_rows(made), 0)
    return loop.compile_training(made.devices, recipe, begin, plan.positions, feed)[0]


def test_the_optimiser_holds_two_moments_of_what_is_selected():
    made = small(
        {"name": "mlp", "image_size": 32, "widths": (64, 64)},
        method={"name": "random", "fraction": 0.1},
    )
    found = method.run(made, 1)
    k = found["forms"]["method"]["trained"]
    base = sum(x.size for x in jax.tree.leaves(made.variables.params))
    assert 0.1 * base < k < 0.12 * base
    assert 8 * k <= found["forms"]["method"]["optimizer_bytes"] <= 1.05 * 8 * k
    head = sum(x.size for x in jax.tree.leaves(made.variables.params["head"]))
    # int32 for what is chosen one by one; whole leaves, as the head's, have none.
    assert found["forms"]["method"]["index_bytes"] == 4 * (k - head)
    assert found["updates"]["compact"]["index_bytes"] == 4 * (k - head)
    compact, masked = found["updates"]["compact"], found["updates"]["masked"]
    assert 8 * k <= compact["state_bytes"] <= 1.05 * 8 * k
    kernels = sum(
        leaf.size
        for path, leaf in trees.flatten(made.variables.params).items()
        if path.endswith("kernel") or path.startswith("head")
    )
    assert 8 * kernels <= masked["state_bytes"] <= 8 * kernels + 16
    assert found["forms"]["method"]["delta_bytes"] < 16 * k + 10_000


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
        chosen = np.random.default_rng(seed).permutation(192 * 256).reshape(192, 256)
        path = "hidden01/dense/kernel"
        mask = trees.map_leaves(
            lambda p, leaf: chosen < 500 if p == path else np.False_, variables.params
        )
        plan = partition.make(variables, backbone.blocks, Selection(mask))
        flat = trees.flatten(variables.params)
        given = step.start(recipe, flat, variables.stats, plan.values, plan.positions)
        fixed = step.Fixed(given[1], plan.positions, feed.resident)
        state, fixed = devices.replicate(where, (given[0], fixed))
        before = np.asarray(state.partial[path])
        with counted() as programs:
            state, _ = function(state, fixed, piece)
        return programs, (np.asarray(state.partial[path]) != before), chosen < 500

    for seed, expected in ((1, 1), (2, 0)):
        programs, moved, chosen = take(seed)
        assert len(programs) == expected
        assert moved.any() and not (moved & ~chosen).any()


@pytest.mark.slow
def test_a_second_start_compiles_nothing(config):
    made = mock.Mock(settings=configs.read(str(config), {}))
    found = start.run(made)
    assert found["first"]["compiled"] > 10
    assert found["second"]["programs"] == found["first"]["programs"]
    assert found["second"]["compiled"] == 0


def test_turns_alternate_and_short_calls_fill_them():
    calls = []
    with mock.patch.object(timing, "TURN_SECONDS", 0.0):
        seconds = timing.by_turns(
            {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3
        )
    assert "".join(calls) == "aabb" + "ab" * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}


def test_a_failed_process_tells_its_last_words():
    with pytest.raises(RuntimeError, match="no_such_module"):
        timing.fresh("subtune_jax.no_such_module", {}, {})


@pytest.mark.parametrize(
    "network", ["mlp", pytest.param("vit", marks=pytest.mark.slow)]
)
def test_the_naive_profile_and_ours_find_the_same_values(network):
    shape = {"mlp": {"image_size": 16, "widths": (24, 24, 24)}}
    shape["vit"] = {"variant": (16, 3, 2, 8), "image_size": 16}
    made = small({"name": network, **shape[network]}, train_steps=6)
    slow, fast = profile.naive(made), profile.ours(made, False)
    assert set(slow["values"]) == set(fast["values"])
    images = len(made.validation.labels)
    for block, value in slow["values"].items():  # of six steps: no noise to speak of
        assert abs(fast["values"][block] - value) <= 1 / images
    halved = profile.ours(made, True)
    assert set(halved["values"]) <= set(fast["values"])
    near, far = (made.variables.params, profile.nudged(made).variables.params)
    for old, new in zip(jax.tree.leaves(near), jax.tree.leaves(far), strict=True):
        assert np.all(old != new)
        np.testing.assert_allclose(new, old, rtol=2e-7, atol=1e-37)
    if network == "vit":
        assert fast["programs"]["alike"] == 3
        assert fast["programs"]["last"] == 0


@pytest.mark.slow
def test_the_sparse_benchmark_has_every_form_and_its_costs():
    made = small({"name": "vit", "variant": (192, 4, 3, 8, True), "image_size": 16})
    some = {name: sparse.FORMS[name] for name in ("gps_k1", "array_25_percent")}
    with mock.patch.object(sparse, "FORMS", some):
        found = sparse.run(made, 1)
    assert set(found["forms"]) == {"full", *some, "columns_25_percent"}
    trained = {name: row["trained"] for name, row in found["forms"].items()}
    assert trained["gps_k1"] < trained["full"] / 50
    assert trained["columns_25_percent"] < trained["full"] / 3.9
    flops = {name: row["flops"] for name, row in found["ratios"].items()}
    assert flops["gps_k1"] < 0.7 and flops["columns_25_percent"] < 0.8
    assert flops["array_25_percent"] > 0.9
    held = {row["what"]: row["holds"] for row in found["checks"]}
    assert held["K=1: memory of 12 n that is not saved"]
    assert held["K=1: state by two moments"]
    for row in found["forms"].values():
        assert row["optimizer_bytes"] == pytest.approx(8 * row["trained"], abs=16)


def test_pytorch_is_left_out_where_it_is_not():
    made = small({"name": "mlp", "image_size": 32, "widths": (8,)})
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=None):
        assert pytorch.run(made, 1) == {"reason": pytorch.ABSENT, "checks": []}
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=True):
        assert pytorch.run(made, 1) == {"reason": pytorch.OTHER, "checks": []}


def test_the_selection_benchmark_compares_with_gradients_and_readings():
    made = small({"name": "mlp", "image_size": 32, "widths": (8,)})
    rng = np.random.default_rng(0)
    few = {"a/kernel": rng.random((4000, 30), np.float32)}
    few["b/kernel"] = rng.random((30, 30000), np.float32)
    with mock.patch.object(selection, "_drawn", return_value=few):
        found = selection.run(made, 1)
    assert found["scores"] == 1_020_000
    assert len(found["passes"]) == 3 and len(found["checks"]) == 4
