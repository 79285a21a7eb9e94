"""The search command: what it finds, its final trainings, and how it resumes."""

import json
import signal
import subprocess
import sys
import time
from unittest import mock

import planted
import pytest

from subtune_jax.commands import compare as compare_command
from subtune_jax.commands import configs
from subtune_jax.commands import search as search_command
from subtune_jax.subtuning import (
    baselines,
    block_search,
    final_training,
    journal,
    trials,
)
from subtune_jax.training import setup

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
    config.greedy = dict(rule="released", epsilon=0.3)
    config.baselines = dict(rows=("selected", "head", "full"), repeats=2)
    return config
"""
BLOCKS = ["hidden01", "hidden02", "hidden03"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def run(config, folder, *more):
    code = search_command.main([f"--config={config}", f"--workdir={folder}", *more])
    path = folder / "search.json"
    return code, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("block", ["hidden02", "hidden03"])
def test_a_search_finds_exactly_the_block_that_can_help(block, tmp_path):
    given = {"epsilon": 0.05}
    last = {"rows": ("selected", "head", "full"), "repeats": 1}
    made = planted.made(block, greedy=given, baselines=last)
    with mock.patch.object(setup, "prepare", return_value=made):
        path = block_search.run(made.settings, tmp_path)
    content = json.loads(path.read_text())
    assert content["selected"] == [block]
    assert [turn["kept"] for turn in content["rounds"]] == [True, False]
    tested = {row["name"]: row["mean"] for row in content["final"]["rows"]}
    assert tested["selected"] > tested["head"] + 0.15


def test_a_search_over_arrays_finds_the_array(tmp_path):
    given = {"epsilon": 0.05, "granularity": "arrays", "max_items": 1}
    made = planted.made("hidden02", greedy=given, baselines={"repeats": 0})
    with mock.patch.object(setup, "prepare", return_value=made):
        content = json.loads(block_search.run(made.settings, tmp_path).read_text())
    assert content["selected"] == ["hidden02/dense/kernel"]
    assert "final" not in content


def test_a_search_holds_what_the_contract_names(config, tmp_path):
    code, content = run(config, tmp_path)
    assert code == 0
    assert content["items"] == BLOCKS
    sizes = [len(turn["candidates"]) for turn in content["rounds"]]
    assert sizes == [3, 2, 1][: len(sizes)]
    assert content["stop"] and set(content["selected"]) <= set(BLOCKS)
    values = [content["start"]["mean"], *(t["value"] for t in content["rounds"])]
    assert content["value"] == max(values)
    trained = 1 + sum(sizes)
    assert content["cost"]["trainings"] == trained
    assert content["cost"]["train_steps"] == 9 * trained
    names = [row["name"] for row in content["final"]["rows"]]
    assert names == ["selected", "head", "full"]
    assert all(len(row["values"]) == 2 for row in content["final"]["rows"])
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_contiguous_run_is_a_search_too(config, tmp_path):
    more = ["--config.greedy.direction=contiguous", "--config.greedy.max_items=2"]
    code, content = run(config, tmp_path, *more, "--config.baselines.repeats=0")
    assert code == 0
    (turn,) = content["rounds"]
    sets = [row["blocks"] for row in turn["candidates"]]
    assert sets == [[b] for b in BLOCKS] + [BLOCKS[:2], BLOCKS[1:]]


def test_a_search_stays_within_its_limits(config, tmp_path):
    more = ["--config.greedy.max_parameters=700", "--config.baselines.repeats=0"]
    code, content = run(config, tmp_path, *more)
    assert code == 0
    rows = [row for turn in content["rounds"] for row in turn["candidates"]]
    assert rows and all(row["trainable"] <= 700 for row in rows)


def test_the_test_split_is_read_after_every_training_and_once(tmp_path, monkeypatch):
    rows = baselines.ROWS
    made = planted.made("hidden02", baselines={"rows": rows, "repeats": 2})
    events, fit, plain = [], final_training.fit, made.task.test.read
    made = made._replace(
        task=made.task._replace(
            test=made.task.test._replace(
                read=lambda index: events.append(int(index)) or plain(index)
            )
        )
    )
    monkeypatch.setattr(
        final_training,
        "fit",
        lambda *given, **more: events.append("train") or fit(*given, **more),
    )
    with mock.patch.object(setup, "prepare", return_value=made):
        block_search.run(made.settings, tmp_path)
    reads = [at for at, event in enumerate(events) if event != "train"]
    assert sorted(events[at] for at in reads) == list(range(200))
    assert "train" not in events[reads[0] :]


def test_baselines_train_what_their_names_say():
    made = planted.made("hidden02")
    testbed = trials.prepare(made, trials.make())
    blocks = trials.blocks(made)
    selected = ("hidden02", "hidden03")
    plan = baselines.plan(testbed, baselines.ROWS, selected, blocks)
    found = {baseline.name: baseline for baseline in plan}

    def owners(name):
        return [
            sorted({path.split("/")[0] for path in stage.trained})
            for stage in found[name].stages
        ]

    assert owners("selected") == [["hidden02", "hidden03"]]
    assert owners("head") == [[]]
    assert owners("full") == owners("lp_ft") == [blocks]
    assert (found["full"].probed, found["lp_ft"].probed) == (False, True)
    assert owners("selected_then_full") == [["hidden02", "hidden03"], blocks]
    assert owners("last_blocks") == [["hidden03", "hidden04"]]
    others = set(blocks) - {"hidden02", "hidden03"}
    assert len(owners("random_blocks")[0]) == 2
    assert set(owners("random_blocks")[0]) <= others


def test_random_blocks_are_drawn_among_all_where_too_few_others_are_left():
    made = planted.made("hidden02")
    testbed = trials.prepare(made, trials.make())
    blocks = trials.blocks(made)
    (row,) = baselines.plan(testbed, ["random_blocks"], tuple(blocks), blocks)
    assert row.stages[0] == trials.candidate(testbed, blocks)


def test_blocks_only_leaves_the_ends_of_a_network():
    given = {"name": "vit", "variant": (16, 2, 2, 8, False), "image_size": 16}
    made = setup.prepare(configs.complete({**planted.GIVEN, "backbone": given}))
    testbed = trials.prepare(made, trials.make())
    blocks = trials.blocks(made)
    only, full = baselines.plan(testbed, ("blocks_only", "full"), (), blocks)
    inside = {path.split("/")[0] for path in only.stages[0].trained}
    assert inside == {"block01", "block02"}
    everything = {path.split("/")[0] for path in full.stages[0].trained}
    assert everything == {"embed", "block01", "block02", "norm"}


def test_each_final_row_takes_the_rate_that_validation_prefers(tmp_path):
    last = {"rows": ("selected",), "repeats": 1, "rates": (1e-6, 1.0)}
    made = planted.made("hidden02", greedy={"epsilon": 0.05}, baselines=last)
    with mock.patch.object(setup, "prepare", return_value=made):
        content = json.loads(block_search.run(made.settings, tmp_path).read_text())
    (row,) = content["final"]["rows"]
    assert row["learning_rate"] == made.settings["optimizer"]["learning_rate"]


def test_a_search_killed_at_any_moment_repeats_no_finished_candidate(config, tmp_path):
    whole = run(config, tmp_path / "whole")[1]
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "subtune_jax", "search"]
    command += [f"--config={config}", f"--workdir={folder}"]
    for lines in (1, 4):
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        path, deadline = folder / journal.NAME, time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (folder / "search.json").exists(), "killed too late to test anything"
    before = journal.read(folder).records
    assert len(before) >= 4
    calls, value = [], trials.value

    def counted(testbed, candidate, number, until):
        calls.append(candidate)
        return value(testbed, candidate, number, until)

    with mock.patch.object(trials, "value", counted):
        code, content = run(config, folder)
    assert code == 0
    assert len(calls) == whole["cost"]["trainings"] - len(before)
    for key in ("selected", "value", "stop"):
        assert content[key] == whole[key]
    assert content["cost"]["trainings"] == whole["cost"]["trainings"]
    assert not list(folder.glob(".trunk-*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config.greedy.rule=papper"], "did you mean 'paper'"),
        (["--config.greedy.epsilon=-1.0"], "epsilon=-1.0"),
        (["--config.greedy.max_flops=10.0"], "max_flops=10; the head alone takes"),
        (["--config.greedy.among=blok.*"], "no path matches 'blok.*'"),
        (["--config.baselines.rows=('ful',)"], "did you mean 'full'"),
        (["--config.baselines.rates=()"], "baselines.rates=()"),
        (["--config.trials.folds=200"], "200 folds; there are 90 examples"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(config, tmp_path, capsys, more, message):
    folder = tmp_path / "new"
    assert run(config, folder, *more) == (2, None)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not folder.exists()


GRID = """
    config.grid = dict(
        tasks=dict(count={}, distance=dict(task=dict(property="distance"))),
        networks=dict(deep={}, wide=dict(backbone=dict(widths=(32, 32)))),
        methods=dict(bias=dict(method=dict(name="bias"))),
        seeds=(0, 1),
        profiles={},
        searches=dict(trials=dict(halving=3)),
        proxies="snip,depth",
        sizes=(60,),
    )
    return config
"""


@pytest.mark.slow
def test_a_comparison_runs_the_grid_and_resumes(config, tmp_path, monkeypatch):
    path = tmp_path / "grid.py"
    path.write_text(config.read_text().replace("    return config\n", GRID))
    folder = tmp_path / "all"
    command = [f"--config={path}", f"--workdir={folder}"]
    assert compare_command.main(command) == 0
    content = json.loads((folder / "compare.json").read_text())
    rows = {(r["task"], r["network"], r["method"]): r for r in content["rows"]}
    assert len(rows) == 2 * 2 * 4
    for (_, _, method), row in rows.items():
        assert len(row["values"]) == 2
        assert ("search" in row) == (method == "selected")
    assert len(content["profiles"]) == 4
    counts = {row["train_examples"] for row in content["sizes"]}
    assert counts == {60, 90}
    markdown = (folder / "compare.md").read_text()
    assert markdown.count("### ") == 5
    assert "| snip |" in markdown
    assert (folder / "pareto.png").exists() and (folder / "sizes.png").exists()
    with (
        mock.patch.object(trials, "value", side_effect=AssertionError),
        mock.patch.object(final_training, "fit", side_effect=AssertionError),
    ):
        assert compare_command.main(command) == 0


def test_a_comparison_of_nothing_is_refused(config, tmp_path, capsys):
    command = [f"--config={config}", f"--workdir={tmp_path / 'new'}"]
    assert compare_command.main(command) == 2
    assert "grid has no methods" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
