"""N seeds of one run: by turns and at once they are what each is alone."""

import json
from unittest import mock

import jax
import numpy as np
import pytest

import subtune_jax.training.run
from subtune_jax import delta
from subtune_jax.commands import configs, seeds
from subtune_jax.core import program_store
from subtune_jax.training import setup

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=200, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(16, 16))
    config.method = dict(name="child_tuning_f", pattern="hidden.*", outside=False)
    config.optimizer = dict(learning_rate=1e-2, clip_norm=1.0)
    config.train_examples = 64
    config.batch_size = 16
    config.train_steps = 9
    config.eval_steps = 0
    config.save_steps = 0
    config.report = False
    config.drift_examples = 20
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "seeds.py"
    path.write_text(CONFIG)
    return path


def run(config, folder, *more):
    return seeds.main([f"--config={config}", f"--workdir={folder}", *more])


@pytest.fixture(scope="module")
def by_turns(config, tmp_path_factory):
    """Three seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("turns") / "all"
    compiled = program_store.compiled
    with mock.patch.object(program_store, "compiled", wraps=compiled) as spy:
        assert run(config, folder, "--count=3") == 0
    names = [call.args[1][0][0] for call in spy.call_args_list]
    assert names.count("step") == 1  # of the first seed; the others have its programs
    return folder


def tuned(folder):
    result = json.loads((folder / "result.json").read_text())
    base = setup.prepare(result["config"]).base
    return result, delta.load(folder / "delta", base._asdict())


def test_seeds_by_turns_are_the_runs_of_their_own(config, by_turns, tmp_path):
    settings = configs.read(str(config), {})
    subtune_jax.training.run.run({**settings, "seed": 2}, tmp_path / "alone")
    one, two = tuned(by_turns / "seed2"), tuned(tmp_path / "alone")
    assert one[0]["metrics"] == two[0]["metrics"]
    jax.tree.map(np.testing.assert_array_equal, one[1], two[1])


def test_seeds_at_once_are_those_by_turns(config, by_turns, tmp_path):
    assert run(config, tmp_path, "--count=3", "--how=vmap") == 0
    for seed in range(3):
        one, two = (tuned(f / f"seed{seed}") for f in (by_turns, tmp_path))
        assert two[0]["frozen_unchanged"] is True
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            one[1],
            two[1],
        )


def test_a_summary_tells_mean_deviation_worst_failures_and_drift(by_turns):
    content = json.loads((by_turns / "seeds.json").read_text())
    results = [tuned(by_turns / f"seed{seed}")[0] for seed in range(3)]
    values = [result["metrics"]["test"] for result in results]
    assert content["values"] == values and content["seeds"] == [0, 1, 2]
    np.testing.assert_allclose(content["mean"], np.mean(values))
    np.testing.assert_allclose(content["std"], np.std(values, ddof=1))
    assert content["worst"] == min(values)
    bars = [result["metrics"]["constant"] for result in results]
    failed = np.mean([v <= bar for v, bar in zip(values, bars, strict=True)])
    assert content["failed"] == failed
    drifts = [result["metrics"]["drift"] for result in results]
    assert content["drift"] == pytest.approx(np.mean(drifts)) and min(drifts) > 0


def test_a_finished_study_trains_nothing_again(config, by_turns):
    with mock.patch.object(subtune_jax.training.run, "run", side_effect=AssertionError):
        assert run(config, by_turns, "--count=3") == 0


def test_no_seeds_are_refused(config, tmp_path, capsys):
    assert run(config, tmp_path / "new", "--count=0") == 2
    assert "--count=0; it must be 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
