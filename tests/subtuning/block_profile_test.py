"""The profile command: what it finds, writes, resumes and refuses."""

import json
from unittest import mock

import jax
import noise
import numpy as np
import planted
import pytest

from subtune_jax.backbones import bert
from subtune_jax.commands import configs
from subtune_jax.commands import profile as profile_command
from subtune_jax.core import trees
from subtune_jax.subtuning import block_profile, journal, proxies, trials
from subtune_jax.training import evidence, setup, workdir

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=120, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(16, 16, 16))
    config.method = dict(name="head")
    config.optimizer = dict(learning_rate=1e-2, probe_steps=4)
    config.batch_size = 16
    config.train_steps = 9
    return config
"""
BLOCKS = ["hidden01", "hidden02", "hidden03"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def run(config, folder, *more):
    code = profile_command.main([f"--config={config}", f"--workdir={folder}", *more])
    path = folder / "profile.json"
    return code, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("block", ["hidden01", "hidden03"])
def test_a_profile_finds_the_one_block_that_can_help(block, tmp_path):
    made = planted.made(block)
    with mock.patch.object(setup, "prepare", return_value=made):
        path = block_profile.run(made.settings, tmp_path)
    content = json.loads(path.read_text())
    assert content["best"] == [block]
    alone = content["rows"][0]["mean"]
    means = {
        r["blocks"][0]: r["mean"] for r in content["rows"] if len(r["blocks"]) == 1
    }
    assert means.pop(block) > alone + 0.15
    assert all(abs(mean - alone) < 0.1 for mean in means.values())


def test_a_profile_holds_what_the_contract_names(config, tmp_path):
    more = ["--config.trials.seeds=2", "--config.candidates.pairs=True"]
    code, content = run(config, tmp_path, *more, "--config.candidates.runs=(1,2)")
    assert code == 0
    sets = [row["blocks"] for row in content["rows"]]
    singles, pairs = [[b] for b in BLOCKS], [BLOCKS[:2], BLOCKS[1:], BLOCKS[::2]]
    assert sets == [[], *singles, *pairs, BLOCKS]
    for row in content["rows"]:
        assert len(row["values"]) == 2
        assert row["mean"] == pytest.approx(np.mean(row["values"]))
        assert row["std"] == pytest.approx(np.std(row["values"], ddof=1))
        assert row["steps"] == 9 and row["step_flops"] > 0 and row["seconds"] > 0
    flops = {tuple(row["blocks"]): row["step_flops"] for row in content["rows"]}
    assert flops[()] < flops["hidden03",] < flops["hidden01",] < flops[tuple(BLOCKS)]
    assert content["rows"][1]["trainable"] == 16 * 16 * 3 * 16 + 32
    assert (content["metric"], content["split"]) == ("accuracy", "validation")
    cost = content["cost"]
    assert (cost["trainings"], cost["train_steps"]) == (16, 16 * 9)
    assert cost["flops"] > 0 and cost["seconds"] > 0
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_profile_repeats_no_finished_trial(config, tmp_path, monkeypatch):
    _, whole = run(config, tmp_path / "whole")
    calls, value = [], trials.value

    def dies(testbed, candidate, number, until):
        calls.append(candidate)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return value(testbed, candidate, number, until)

    monkeypatch.setattr(trials, "value", dies)
    assert run(config, tmp_path / "killed")[0] == 1
    assert not (tmp_path / "killed" / "profile.json").exists()
    done = journal.read(tmp_path / "killed").records
    assert len(done) == 2
    code, content = run(config, tmp_path / "killed")
    assert code == 0
    assert len(calls) == 3 + len(whole["rows"]) - 2
    assert len({(c.trained, c.fresh) for c in calls}) == len(whole["rows"])
    values = [[row["values"] for row in c["rows"]] for c in (content, whole)]
    assert values[0] == values[1]
    for key in ("trainings", "train_steps"):
        assert content["cost"][key] == whole["cost"][key]


def test_a_finished_profile_trains_nothing_again(config, tmp_path):
    _, first = run(config, tmp_path)
    with mock.patch.object(trials, "value", side_effect=AssertionError):
        code, second = run(config, tmp_path)
    assert code == 0
    assert first["rows"] == second["rows"] and first["cost"] == second["cost"]


def test_with_halving_the_references_and_one_block_are_trained_to_the_end(
    config, tmp_path
):
    more = ["--config.trials.halving=3", "--config.trials.least_steps=2"]
    _, content = run(config, tmp_path, *more)
    steps = {tuple(row["blocks"]): row["steps"] for row in content["rows"]}
    assert steps[()] == steps[tuple(BLOCKS)] == 9
    assert sorted(steps[block,] for block in BLOCKS) == [3, 3, 9]
    assert steps[tuple(content["best"])] == 9
    assert content["cost"]["train_steps"] == 9 + 9 + 3 + 3 + 9


@pytest.mark.parametrize("how", ["trained", "frozen", "full"])
def test_blocks_can_start_from_random_values(how, config, tmp_path):
    _, plain = run(config, tmp_path / "plain")
    _, content = run(config, tmp_path / how, f"--config.candidates.reinitialise={how}")
    assert content["reinitialise"] == how
    whole = plain["rows"][-1]["trainable"]
    for row, other in zip(content["rows"], plain["rows"], strict=True):
        expected = {"frozen": 0, "full": whole}.get(how, other["trainable"])
        assert row["trainable"] == expected


def test_proxies_stand_beside_the_profile(config, tmp_path):
    code, content = run(config, tmp_path, "--proxy=all")
    assert code == 0
    assert set(content["proxies"]) == set(proxies.PROXIES)
    for found in content["proxies"].values():
        assert list(found["scores"]) == BLOCKS
        assert found["seconds"] > 0
        assert found["rank_correlation"] is None or abs(found["rank_correlation"]) <= 1


def test_proxies_can_be_had_alone(config, tmp_path):
    with mock.patch.object(trials, "value", side_effect=AssertionError):
        code, content = run(config, tmp_path, "--proxy=snip", "--proxy-only")
    assert code == 0
    assert content["rows"] == [] and list(content["proxies"]) == ["snip"]


def test_a_regression_of_texts_has_proxies_of_its_own_loss(tmp_path):
    plain = {
        "task": noise.task("bert", 40, 8, regression=True),
        "backbone": {"name": "bert", **bert.TINY},
        "method": {"name": "head"},
        "optimizer": {"probe_steps": 2},
        "batch_size": 4,
        "train_steps": 3,
    }
    made, targets = setup.prepare(configs.complete(plain)), []

    def noting(logits, wanted):
        if not isinstance(wanted, jax.core.Tracer):
            targets.append(np.asarray(wanted))
        return loss(logits, wanted)

    loss = made.task.loss
    made = made._replace(task=made.task._replace(loss=noting))
    testbed = trials.prepare(made, trials.make())
    found = proxies.scores(testbed, trials.blocks(made), journal.read(tmp_path))
    assert set(found["scores"]) == set(proxies.PROXIES)
    for scores in found["scores"].values():
        assert np.isfinite(list(scores.values())).all()
    assert any(found["scores"]["loss_drop"].values())
    others = testbed.folds[0].train[: (proxies.BATCHES - 1) * 4]
    for each in np.concatenate(targets).reshape(-1, len(others)):  # batch by batch
        np.testing.assert_array_equal(each, made.train.labels[others])


def test_a_block_that_no_gradient_reaches_scores_zero(tmp_path):
    made = planted.made("hidden02")
    testbed = trials.prepare(made, trials.make())
    empty = journal.read(tmp_path)
    found = proxies.scores(testbed, trials.blocks(made), empty)["scores"]
    for name in ("gradient_norm", "squared_gradient", "signal_to_noise", "loss_drop"):
        assert found[name]["hidden01"] == 0, name
        assert found[name]["hidden02"] != 0, name


def test_gradients_of_proxies_are_those_of_the_whole_network():
    made = planted.made("hidden02")
    testbed = trials.prepare(made, trials.make())
    blocks, count = trials.blocks(made), 3
    seen = proxies.evidence(testbed, blocks, 0, count)
    (head,) = testbed.trainer.heads.values()
    params = {**made.base.params, **trees.nest(head)}
    total, squares = {}, {}
    for batch in evidence.make(made).batches(count):

        def loss(params, batch=batch):
            logits, _ = made.backbone.apply(params, made.base.stats, batch["inputs"])
            targets = jax.nn.one_hot(batch["labels"], planted.CLASSES)
            return made.task.loss(logits, targets).mean()

        for path, leaf in trees.flatten(jax.grad(loss)(params)).items():
            wide = np.asarray(leaf, np.float64)
            total[path] = total.get(path, 0) + wide / count
            squares[path] = squares.get(path, 0) + wide**2 / count
    for block in blocks:
        for path, leaf in seen[block].mean.items():
            np.testing.assert_allclose(leaf, total[f"{block}/{path}"], atol=1e-6)
            other = squares[f"{block}/{path}"]
            np.testing.assert_allclose(seen[block].squares[path], other, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--proxy=snipp"], "no proxy named 'snipp'; did you mean 'snip'"),
        (["--proxy-only"], "--proxy-only without --proxy"),
        (["--config.candidates.runs=(4,)"], "candidates.runs has 4; there are 3"),
        (["--config.candidates.reinitialise=all"], "reinitialise='all' is not known"),
        (["--config.trials.folds=1"], "folds=1"),
        (["--config.trials.halving=1"], "halving=1"),
        (["--config.profil.runs=(1,)"], "no config key"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(config, tmp_path, capsys, more, message):
    folder = tmp_path / "new"
    assert run(config, folder, *more) == (2, None)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not folder.exists()


def test_a_workdir_of_another_config_is_refused(config, tmp_path, capsys):
    workdir.claim(tmp_path, {"seed": 3})
    assert run(config, tmp_path)[0] == 2
    assert "of another config" in capsys.readouterr().err
