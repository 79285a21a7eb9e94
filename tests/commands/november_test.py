"""Workdirs, deltas and config keys that were written before the wings still load.

`tests/workdirs_of_november/` was written by the code of 2026-11 with its `config.py`: a
training that was killed after step 2 of 4 (with the result and the delta that it would
have had) and a search.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from subtune_jax import delta
from subtune_jax.__main__ import main
from subtune_jax.commands import configs
from subtune_jax.core import trees
from subtune_jax.subtuning import trainer

OLD = Path(__file__).parents[1] / "workdirs_of_november"
RENAMED = ("search", "finals")


@pytest.fixture
def run(monkeypatch):
    def subtune(*arguments):
        monkeypatch.setattr("sys.argv", ["subtune", *map(str, arguments)])
        return main()

    return subtune


def base():
    with np.load(OLD / "base.npz") as arrays:  # its last bits depend on XLA's flags
        return trees.nest(dict(arrays))


def test_a_killed_training_is_resumed_to_the_same_result(run, tmp_path, capsys):
    workdir = tmp_path / "train"
    shutil.copytree(OLD / "train", workdir)
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "delta")
    assert run("train", f"--config={OLD / 'config.py'}", f"--workdir={workdir}") == 0
    err = capsys.readouterr().err
    assert "resuming after step 2" in err
    for old in RENAMED:
        assert err.count(f"config section {old!r} is now") == 1
    then, now = (
        json.loads((folder / "train" / "result.json").read_text())
        for folder in (OLD, tmp_path)
    )
    assert now["metrics"]["test"] == then["metrics"]["test"]
    assert now["trainable"] == then["trainable"]
    before, after = (
        delta.info(folder / "train" / "delta") for folder in (OLD, tmp_path)
    )
    assert after["leaves"].keys() == before["leaves"].keys()


def test_a_finished_run_is_known_as_finished(run, capsys):
    assert (
        run("train", f"--config={OLD / 'config.py'}", f"--workdir={OLD / 'train'}") == 0
    )
    assert capsys.readouterr().out.strip() == str(OLD / "train" / "result.json")


def test_a_delta_restores_the_bits_it_was_made_of():
    found = delta.info(OLD / "train" / "delta")
    tuned = delta.load(OLD / "train" / "delta", base())
    assert delta.fingerprint(tuned) == found["result_fingerprint"]


def test_a_search_repeats_no_trial_of_its_journal(run, tmp_path, monkeypatch):
    workdir = tmp_path / "search"
    shutil.copytree(OLD / "search", workdir)
    (workdir / "search.json").unlink()
    monkeypatch.setattr(trainer, "training", None)  # no trial is begun
    assert run("search", f"--config={OLD / 'config.py'}", f"--workdir={workdir}") == 0
    then, now = (
        json.loads((folder / "search" / "search.json").read_text())
        for folder in (OLD, tmp_path)
    )
    for key in ("selected", "value", "rounds"):
        assert now[key] == then[key]


def test_old_keys_on_the_command_line_are_read_with_a_line(capsys):
    settings = configs.read(str(OLD / "config.py"), {"search.epsilon": "0.25"})
    assert settings["greedy"]["epsilon"] == 0.25
    assert "config section 'search' is now 'greedy'" in capsys.readouterr().err


def test_another_config_is_still_refused(run, capsys):
    more = "--config.search.max_items=2"
    arguments = f"--config={OLD / 'config.py'}", f"--workdir={OLD / 'search'}", more
    assert run("search", *arguments) == 2
    assert "greedy.max_items is 1 there and 2 here" in capsys.readouterr().err
