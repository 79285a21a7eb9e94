"""What dynamic masks and seeds that share programs cost."""

import json
from unittest import mock

import jax
import numpy as np
import pytest
import setups

import subtune_jax.training.run
from subtune_jax.core import program_store
from subtune_jax.methods import dps_dense, full
from subtune_jax.study.benches import moving, seeds
from subtune_jax.training import program, results

KERNELS = 4 * 256 + 2 * 512 + 32  # of the block and the head
KEPT = 4 * 180 + 2 * 359 + 23  # 70 % of each, rounded up


def test_a_run_has_a_step_that_chooses_in_every_cycle():
    kinds = moving._kinds(4)
    assert sorted(sum(kinds.values(), [])) == list(range(94))
    assert kinds["choosing"] == list(range(4, 94, 8))
    assert kinds["stage_2"][:4] == [5, 6, 7, 13]
    assert kinds["stage_1"][:5] == [0, 1, 2, 3, 8]


def test_moving_masks_are_measured_in_the_stages_of_dps(reviews, cheap, monkeypatch):
    cheap({"plain": 1.0, "stage_1": 1.1, "choosing": 3.0, "stage_2": 1.2})
    make, masked, seen, constant = dps_dense.make, moving.masked_updates.masked, [], []

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
    monkeypatch.setattr(moving.masked_updates, "masked", noting)
    monkeypatch.setattr(moving, "held", lambda setup, selector: {})
    figures = moving.run(setups.of_texts(reviews), 2)
    jax.effects_barrier()
    stages = [(step // 4 % 2, step % 4 == 0, marks) for step, marks in seen]
    assert stages == [(0, False, KERNELS), (1, True, KEPT), (1, False, KEPT)]
    assert set(constant) == {KEPT}
    counts = {"stage_1": 48, "choosing": 12, "stage_2": 34}
    assert figures["steps"] == counts
    whole = 1.1 * 48 + 3.0 * 12 + 1.2 * 34
    ratios = [row["value"] for row in figures["checks"]]
    assert ratios == pytest.approx([1.1, 1.2, 12 * 1.8 / whole])


def test_bytes_of_moving_masks_are_those_of_their_runs(reviews, monkeypatch):
    def uncompiled(where, recipe, state, fixed, feed, *_):
        store = program_store.make(where)
        return program.Program(recipe, where, state, fixed, feed, None, store)

    monkeypatch.setattr(program, "compiled", uncompiled)
    setup = setups.of_texts(reviews, train_steps=8)
    methods = moving._methods()
    assert set(methods) == {"dps_dense", "gmt", "gmt_compact", "spiel"}
    figures = {name: moving.held(setup, one) for name, one in methods.items()}
    for name in methods:
        plan = moving.plan_of(setup, methods[name])
        run = program.build(
            setup, plan, setup.optimizer, moving.RUN_STEPS, selector=methods[name]
        )
        size = results.state_bytes(run.state)
        assert figures[name]["optimizer_bytes"] == size
        assert figures[name]["values"] == sum(x.size for x in run.state.values.values())
    assert figures["dps_dense"]["memory_bytes"] == 4 * KERNELS + 4
    assert figures["gmt"]["memory_bytes"] == 0
    assert figures["gmt_compact"]["values"] < 0.51 * figures["gmt"]["values"]
    assert figures["spiel"]["ratios"]["memory_bytes"] < 1.6
    with pytest.raises(ValueError, match="a static method"):
        moving.held(setup, full.make())


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

    monkeypatch.setattr(subtune_jax.training.run, "run", run)
    figures = seeds.compare(setups.text_config(reviews))
    pairs = [(seed, shared) for seed in range(5) for shared in (False, True)]
    assert calls == [(5, False), *pairs]
    assert figures["differing"] == 1
    assert {way: len(each) for way, each in figures["seconds"].items()} == {
        "apart": 5,
        "shared": 5,
    }
    results = [{"ratio": 0.8, "differing": 0}, {"ratio": 1.0, "differing": 2}]
    monkeypatch.setattr("subtune_jax.study.timing.fresh", lambda *_: results.pop(0))
    values = [row["value"] for row in seeds.run(mock.Mock(settings={}))["checks"]]
    assert values == [0.8, 2]


def test_a_seed_that_shares_programs_is_the_same_run(reviews):
    short = {"train_steps": 2, "parallel": "shard_map", "report": False}
    runs_of = [setups.text_config(reviews, seed=seed, **short) for seed in (0, 1)]
    programs = {}
    _, other = seeds._timed(runs_of[0], programs)
    _, shared = seeds._timed(runs_of[1], programs)
    _, apart = seeds._timed(runs_of[1], None)
    assert shared == apart
    assert shared != other
