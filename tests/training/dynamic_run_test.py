"""Whole runs of moving methods: resumed in the middle of a stage, bit for bit."""

import jax
import numpy as np
import pytest

from subtune_jax import delta
from subtune_jax.commands import configs
from subtune_jax.training import checkpoint, run, setup, workdir
from subtune_jax.training.settings import with_changes

METHODS = {
    "spiel": {"fraction": 0.1, "period_steps": 5, "accumulate_steps": 3},
    "dps_mix": {"stage_steps": 4},
    "child_tuning_f": {"pattern": "hidden.*", "outside": False},
    "gmt": {"keep_ratio": 0.1, "among": ".*kernel", "compact": True},
    "lisa": {"period_steps": 3, "pattern": "hidden.*"},
}
STEPS, AT = 12, 6  # in the middle of a stage, an accumulation, a period


def config(method, **changes):
    given = {
        "task": {"name": "structured", "examples": 200, "image_size": 16},
        "backbone": {"name": "mlp", "image_size": 16, "widths": (16, 16)},
        "method": {"name": method, **METHODS[method]},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1},
        "batch_size": 16,
        "train_steps": STEPS,
        "eval_steps": 0,
        "save_steps": AT,
        "report": False,
    }
    return with_changes(configs.complete(given), changes)


def outcome(folder, given):
    """The tuned tree, and the last checkpoint: memory, masks and moments."""
    base = setup.prepare(given).base
    tuned = delta.load(folder / "delta", {"params": base.params, "stats": base.stats})
    return tuned, folder / "checkpoints"


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_in_a_stage_resumes_to_the_same_bits(
    method, tmp_path, monkeypatch
):
    given, saved = config(method), {}
    save = checkpoint.save

    def keep(folder, done, state):
        save(folder, done, state)
        saved[folder.parent.name, done] = state

    monkeypatch.setattr(checkpoint, "save", keep)
    run.run(given, tmp_path / "whole")

    def die(folder, done, state):
        save(folder, done, state)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", die)
    with pytest.raises(Killed):
        run.run(given, tmp_path / "parts")
    monkeypatch.setattr(checkpoint, "save", keep)
    run.run(given, tmp_path / "parts")
    one, two = saved["whole", STEPS], saved["parts", STEPS]
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert jax.tree.leaves(one.moving)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    tuned = [outcome(tmp_path / name, given)[0] for name in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *tuned)


@pytest.mark.parametrize(
    ("method", "optimizer", "message"),
    [
        ("spiel", {"moving": "mask_gradient"}, "this method moves positions"),
        ("spiel", {"name": "sgd"}, "moments='seed'; adam and adamw have it"),
        ("spiel", {"ema": 0.9}, "ema=0.9; positions move: give 0"),
        ("spiel", {"rgn_steps": 5}, "rgn_steps=5; masks move: give 0"),
        ("gmt", {"moments": "seed"}, "'seed'; this method has no candidates"),
        ("gmt", {"moments": "kept"}, "moments='kept' is not known"),
        ("gmt", {"moving": "mask"}, "moving='mask' is not known"),
    ],
)
def test_what_a_moving_mask_cannot_have_is_refused(
    method, optimizer, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        run.run(config(method, optimizer=optimizer), tmp_path / "run")


@pytest.mark.parametrize("method", ["dps_mix", "child_tuning_f"])
def test_masking_gradients_is_reported_as_a_leak(method, tmp_path):
    given = config(method, optimizer={"moving": "mask_gradient"})
    run.run(given, tmp_path)
    leaks = [r["leak"] for r in workdir.read_log(tmp_path) if r["split"] == "train"]
    assert len(leaks) == STEPS and max(leaks) > 0
