"""Benchmarks of texts and of masks that move: what they count and compare."""

import csv
import importlib.util
import json
from unittest import mock

import jax
import numpy as np
import pytest

from subtune_jax.backbones import bert, vit
from subtune_jax.commands import configs
from subtune_jax.core import devices
from subtune_jax.methods import dps_dense, full
from subtune_jax.study.benches import buckets, method, moving, pytorch, seeds, sparse
from subtune_jax.training import assembly, evidence, results, setup
from subtune_jax.training import run as train

TINY = {"name": "bert", **bert.TINY, "variant": (16, 1, 2, 32, 97, 16)}  # one block
ROWS, BATCH, LONG = 72, 8, 16  # LONG tokens at most; a text of n words has n + 2
NEEDS_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Texts of 1 to 5 words, every twelfth of 10 or 20."""
    file = tmp_path_factory.mktemp("task") / "reviews.csv"
    rng = np.random.default_rng(0)
    with file.open("w", newline="") as stream:
        write = csv.writer(stream).writerow
        write(["text", "label"])
        for i in range(ROWS):
            count = 1 + i % 5 if i % 12 else rng.choice([10, 20])
            write(
                [" ".join(f"word{n}" for n in rng.integers(0, 50, count)), "ab"[i % 2]]
            )
    return file


def given(reviews, **changes):
    return configs.complete(
        {
            "task": {"name": "text_file", "path": str(reviews)},
            "backbone": TINY,
            "method": {"name": "random", "count": 1},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "batch_size": BATCH,
            **changes,
        }
    )


def small(reviews, **changes):
    """A setup on one device."""
    made = setup.prepare(given(reviews, **changes))
    return made._replace(devices=devices.choose("shard_map", jax.devices()[:1]))


def test_the_sparse_benchmark_forms_no_gradient_of_a_text_network_whole(
    reviews, caplog
):
    made = small(reviews)
    chosen = sparse._selections(evidence.make(made))
    plan = method.plan_of(made, chosen["gps_k1"])
    with caplog.at_level("INFO", "subtune_jax.sparse_step.interpreter"):
        one = method.assemble(made, plan, cached=False)
    assert not [each for each in caplog.messages if "formed whole" in each]
    states = {}
    method.stepping(one, states, "gps_k1")()
    found = sparse._figures(one, states["gps_k1"], [1.0])
    # One input a neuron, and its bias, of 4 x 16 + 32 + 16; the head, 16 x 2 + 2.
    assert found["trained"] == 2 * 112 + 34
    assert found["optimizer_bytes"] == pytest.approx(8 * found["trained"], abs=16)


@NEEDS_TORCH
def test_a_step_of_texts_is_measured_beside_pytorch(reviews):
    found = pytorch.run(small(reviews), 1)
    assert set(found["milliseconds"]) == {"full", "gps_k1", *pytorch.PAIRS.values()}
    assert [row["limit"] for row in found["checks"]] == [0.65, 1.0]
    assert found["shape"] == [BATCH, 8, 2]
    assert found["difference"] < 1e-6


@NEEDS_TORCH
@pytest.mark.parametrize("pooling", bert.POOLINGS)
def test_both_networks_give_padded_texts_the_same_logits(reviews, pooling):
    chosen = {**TINY, "pooling": pooling}
    made = loud(small(reviews, backbone=chosen))
    x, _ = pytorch._batch(made)
    assert len(set(np.count_nonzero(x[..., 1], 1))) > 1  # texts differ in length
    assert pytorch._difference(made) < 1e-5


def loud(made):
    """With parameters far from their beginning, so that nothing hides."""
    rng = np.random.default_rng(0)
    draw = lambda x: np.asarray(rng.normal(0, 0.5, x.shape), np.float32)  # noqa: E731
    params = jax.tree.map(draw, made.variables.params)
    return made._replace(variables=made.variables._replace(params=params))


@NEEDS_TORCH
def test_both_networks_give_images_the_same_logits(reviews):
    made = small(
        reviews,
        task={"name": "structured", "examples": 40, "image_size": 16},
        backbone={"name": "vit", **vit.TINY, "variant": (16, 2, 2, 8, True)},
    )
    assert pytorch._difference(loud(made)) < 1e-4


def test_without_a_network_of_its_own_pytorch_measures_nothing(reviews):
    dropping = {**TINY, "dropout": 0.1}
    other = {"name": "sgd"}
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=True):
        for change in ({"backbone": dropping}, {"optimizer": other}):
            found = pytorch.run(small(reviews, **change), 1)
            assert found == {"reason": pytorch.OTHER, "checks": []}


@pytest.fixture
def cheap(monkeypatch):
    """Turns of given seconds: each call of a step happens once."""

    def set_to(taken):
        def by_turns(steps, repeats):
            for step in steps.values():
                step()
            return {name: [taken[name]] * repeats for name in steps}

        monkeypatch.setattr("subtune_jax.study.timing.by_turns", by_turns)

    return set_to


def test_an_epoch_of_cut_batches_is_the_mean_of_its_lengths(reviews, cheap):
    cheap({"8": 1.0, "16": 3.0, "padded": 3.0})
    made = small(reviews, batch_size=4)
    with (
        mock.patch.object(buckets, "LENGTH", LONG),
        mock.patch.object(bert, "LENGTHS", (8,)),
    ):
        found = buckets.run(made, 2)
        whole = buckets._prepared(made, ())
        cut = buckets._prepared(made, None)
    counts = {8: 0, 16: 0}
    tokens = 0
    for short, long in zip(pieces(cut), pieces(whole), strict=True):
        length = short["inputs"].shape[1]
        assert long["inputs"].shape[1] == LONG
        np.testing.assert_array_equal(long["labels"], short["labels"])
        np.testing.assert_array_equal(long["inputs"][:, :length], short["inputs"])
        assert not long["inputs"][:, length:].any()
        counts[length] += 1
        tokens += np.count_nonzero(long["inputs"][..., 1])
    assert min(counts.values()) > 0
    assert found["batches"] == {str(n): count for n, count in counts.items()}
    assert found["programs"] == 2
    mean = (counts[8] + 3 * counts[16]) / sum(counts.values())
    assert found["checks"][0]["value"] == pytest.approx(mean / 3)
    places = 4 * (8 * counts[8] + 16 * counts[16]), 4 * 16 * sum(counts.values())
    assert found["tokens"]["cut"] == pytest.approx(tokens / places[0])
    assert found["tokens"]["padded"] == pytest.approx(tokens / places[1])


def pieces(made):
    return buckets._feed(made).pieces(0, len(made.train.labels) // 4)


def test_images_have_no_lengths(reviews):
    made = small(
        reviews,
        task={"name": "structured", "examples": 40, "image_size": 16},
        backbone={"name": "vit", **vit.TINY},
    )
    assert buckets.run(made, 1) == {"reason": buckets.OTHER, "checks": []}


def test_a_run_has_a_step_that_chooses_in_every_cycle():
    kinds = moving._kinds(4)
    assert sorted(sum(kinds.values(), [])) == list(range(94))
    assert kinds["choosing"] == list(range(4, 94, 8))
    assert kinds["stage_2"][:4] == [5, 6, 7, 13]
    assert kinds["stage_1"][:5] == [0, 1, 2, 3, 8]


KERNELS = 4 * 256 + 2 * 512 + 32  # of the block and the head
KEPT = 4 * 180 + 2 * 359 + 23  # 70 % of each, rounded up


def test_moving_masks_are_measured_in_the_stages_of_dps(reviews, cheap, monkeypatch):
    cheap({"plain": 1.0, "stage_1": 1.1, "choosing": 3.0, "stage_2": 1.2})
    make, masked, seen, constant = dps_dense.make, moving.updates.masked, [], []

    def spying(*arguments):
        selector = make(*arguments)

        def update(step, selection):
            moved = selector.update(step, selection)
            marks = sum(mask.sum() for mask in moved.selection.mask.values())
            jax.debug.callback(
                lambda *x: seen.append([int(y) for y in x]), step.step, marks
            )
            return moved

        return selector._replace(update=update)

    def noting(transform, mask):
        constant.append(sum(np.sum(flags) for flags in mask.values() if flags.ndim))
        return masked(transform, mask)

    monkeypatch.setattr(moving.dps_dense, "make", spying)
    monkeypatch.setattr(moving.updates, "masked", noting)
    monkeypatch.setattr(moving, "held", lambda made, selector: {})
    found = moving.run(small(reviews), 2)
    jax.effects_barrier()
    stages = [(step // 4 % 2, step % 4 == 0, marks) for step, marks in seen]
    assert stages == [(0, False, KERNELS), (1, True, KEPT), (1, False, KEPT)]
    assert set(constant) == {KEPT}
    counts = {"stage_1": 48, "choosing": 12, "stage_2": 34}
    assert found["steps"] == counts
    whole = 1.1 * 48 + 3.0 * 12 + 1.2 * 34
    ratios = [row["value"] for row in found["checks"]]
    assert ratios == pytest.approx([1.1, 1.2, 12 * 1.8 / whole])


def test_bytes_of_moving_masks_are_those_of_their_runs(reviews, monkeypatch):
    uncompiled = lambda where, recipe, begin, *rest: (None, begin[0])  # noqa: E731
    monkeypatch.setattr(assembly.loop, "compile_training", uncompiled)
    made = small(reviews, train_steps=8)
    methods = moving._methods()
    assert set(methods) == {"dps_dense", "gmt", "gmt_compact", "spiel"}
    found = {name: moving.held(made, one) for name, one in methods.items()}
    for name in methods:
        plan = moving.plan_of(made, methods[name])
        run = assembly.assemble(
            made, plan, made.optimizer, moving.RUN_STEPS, selector=methods[name]
        )
        size = results.state_bytes(run.state)
        assert found[name]["optimizer_bytes"] == size
        assert found[name]["values"] == sum(x.size for x in run.state.values.values())
    assert found["dps_dense"]["memory_bytes"] == 4 * KERNELS + 4
    assert found["gmt"]["memory_bytes"] == 0
    assert found["gmt_compact"]["values"] < 0.51 * found["gmt"]["values"]
    assert found["spiel"]["ratios"]["memory_bytes"] < 1.6
    with pytest.raises(ValueError, match="a static method"):
        moving.held(made, full.make())


def test_seeds_alternate_and_runs_that_differ_are_counted(reviews, monkeypatch):
    calls = []

    def run(settings, folder, programs=None):
        seed, shared = settings["seed"], programs is not None
        assert settings["report"] is False  # else one way would draw and the other not
        calls.append((seed, shared))
        if shared:
            programs["x"] = seed
        folder.mkdir()
        wrong = shared and seed == 1  # by the last bit of one loss
        loss = 1 + np.finfo(float).eps * wrong
        line = {"step": 1, "split": "train", "loss": loss}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        path = folder / "result.json"
        path.write_text(json.dumps({"metrics": {"test": 0.5, "seed": seed}}))
        return path

    monkeypatch.setattr(train, "run", run)
    found = seeds.compare(given(reviews))
    pairs = [(seed, shared) for seed in range(5) for shared in (False, True)]
    assert calls == [(5, False), *pairs]
    assert found["differing"] == 1
    assert {way: len(each) for way, each in found["seconds"].items()} == {
        "apart": 5,
        "shared": 5,
    }
    results = [{"ratio": 0.8, "differing": 0}, {"ratio": 1.0, "differing": 2}]
    monkeypatch.setattr("subtune_jax.study.timing.fresh", lambda *_: results.pop(0))
    values = [row["value"] for row in seeds.run(mock.Mock(settings={}))["checks"]]
    assert values == [0.8, 2]


def test_a_seed_that_shares_programs_is_the_same_run(reviews):
    short = {"train_steps": 2, "parallel": "shard_map", "report": False}
    runs_of = [given(reviews, seed=seed, **short) for seed in (0, 1)]
    programs = {}
    _, other = seeds._timed(runs_of[0], programs)
    _, shared = seeds._timed(runs_of[1], programs)
    _, apart = seeds._timed(runs_of[1], None)
    assert shared == apart
    assert shared != other
