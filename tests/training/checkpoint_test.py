"""Checkpoints: what was saved comes back, and nothing else is taken for it."""

import jax
import ml_dtypes
import numpy as np
import optax
import pytest

from subtune_jax.training import checkpoint


def state(width=5):
    values = {"a/kernel": np.arange(width, dtype=np.float32)}
    return {
        "values": values,
        "opt_state": jax.tree.map(np.asarray, optax.adamw(1e-3).init(values)),
        "half": np.ones(3, ml_dtypes.bfloat16),
        "step": np.int32(7),
        "none": None,
    }


def test_a_state_comes_back_with_its_types_and_bits(tmp_path):
    saved = state()
    checkpoint.save(tmp_path / "checkpoints", 7, saved)
    step, found = checkpoint.restore(tmp_path / "checkpoints", state())
    assert step == 7
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, saved, found)
    assert found["half"].dtype == ml_dtypes.bfloat16


def test_the_newest_is_restored_and_two_are_kept(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state() | {"step": np.int32(step)})
    step, found = checkpoint.restore(tmp_path, state())
    assert (step, int(found["step"])) == (3, 3)
    kept = {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()}
    assert kept == {2, 3}


def test_a_step_can_be_saved_again(tmp_path):
    checkpoint.save(tmp_path, 1, state())
    checkpoint.save(tmp_path, 1, state() | {"step": np.int32(9)})
    assert int(checkpoint.restore(tmp_path, state())[1]["step"]) == 9


def test_where_there_is_none_there_is_none(tmp_path):
    assert checkpoint.restore(tmp_path / "nothing", state()) is None
    assert checkpoint.restore(tmp_path, state()) is None


def test_another_layout_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, state())
    with pytest.raises(ValueError, match="another selection, optimizer or version"):
        checkpoint.restore(tmp_path, state(width=6))
