"""The training command: what it writes, how it resumes, what it refuses."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from subtune_jax import delta
from subtune_jax.commands import train as train_command
from subtune_jax.core import registry
from subtune_jax.training import workdir

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=400, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(16, 16))
    config.method = dict(name="random", fraction=0.2)
    config.optimizer = dict(learning_rate=1e-2, weight_decay=0.1, probe_steps=5)
    config.batch_size = 30
    config.train_steps = 12
    config.eval_steps = 5
    config.save_steps = 4
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def command(config, workdir, *more):
    return [f"--config={config}", f"--workdir={workdir}", *more]


def environment(devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"  # the last one counts
    return {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"}


def spawn(config, workdir, *more, devices=1, report=False):
    arguments = [sys.executable, "-m", "subtune_jax", "train"]
    arguments += command(config, workdir, *more)
    arguments += [] if report else ["--config.report=False"]  # which takes seconds
    return subprocess.Popen(
        arguments,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """An uninterrupted run: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("finished")
    process = spawn(config, workdir, report=True)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return workdir, out, err


def base_and_tuned(workdir):
    result = json.loads((workdir / "result.json").read_text())
    base = registry.load("backbones", result["config"]["backbone"]).load()
    tree = jax.tree.map(np.asarray, base._asdict())
    return tree, delta.load(workdir / "delta", tree)


def test_a_run_writes_all_that_the_contract_names(finished):
    workdir, out, err = finished
    assert out.splitlines()[-1] == str(workdir / "result.json")
    result = json.loads((workdir / "result.json").read_text())
    assert result["frozen_unchanged"] is True
    counts = result["trainable"]
    moving = counts["selected"] + counts["extras"]
    assert counts["fraction"] == moving / counts["base"]
    assert 0 <= result["metrics"]["test"] <= 1
    assert 0 <= result["linear_probe"]["test"] <= 1
    assert "linear probe: test accuracy" in err
    assert result["cost"]["step_flops"] > 0
    assert result["cost"]["delta_bytes"] == delta.info(workdir / "delta")["bytes"]
    for name in ("metrics.jsonl", "report.html", "report.png", "config.json"):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / "tensorboard").glob("events*"))


def test_only_selected_elements_are_in_the_delta(finished):
    workdir = finished[0]
    base, tuned = base_and_tuned(workdir)
    counts = json.loads((workdir / "result.json").read_text())["trainable"]
    moved = jax.tree.map(lambda a, b: int((a != b).sum()), base, tuned_body(tuned))
    assert 0 < sum(jax.tree.leaves(moved)) <= counts["selected"]
    assert sum(jax.tree.leaves(moved["stats"])) == 0


def tuned_body(tuned):
    params = {k: v for k, v in tuned["params"].items() if k != "head"}
    return {"params": params, "stats": tuned["stats"]}


def test_each_step_is_logged_once(finished):
    records = workdir.read_log(finished[0])
    steps = [r["step"] for r in records if r["split"] == "train"]
    assert steps == list(range(1, 13))
    assert [r["step"] for r in records if r["split"] == "validation"] == [5, 10, 12]


def test_a_run_killed_after_its_last_step_is_evaluated_alike(
    config, finished, tmp_path
):
    shutil.copytree(finished[0], tmp_path / "again")
    (tmp_path / "again" / "result.json").unlink()
    process = spawn(config, tmp_path / "again", report=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resuming after step 12" in err
    results = [
        json.loads((folder / "result.json").read_text())
        for folder in (finished[0], tmp_path / "again")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    last = workdir.read_log(finished[0])[-1]
    assert results[0]["metrics"]["validation"] == last["accuracy"]


@pytest.mark.parametrize("after", [5, 9])
def test_a_killed_run_resumes_to_the_same_bits(config, finished, tmp_path, after):
    process = spawn(config, tmp_path)
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        lines = log.read_text().count('"train"') if log.exists() else 0
        if lines >= after:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "result.json").exists(), "killed too late to test anything"
    process = spawn(config, tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resuming after step" in err
    one, two = base_and_tuned(finished[0])[1], base_and_tuned(tmp_path)[1]
    jax.tree.map(np.testing.assert_array_equal, one, two)
    steps = [r["step"] for r in workdir.read_log(tmp_path) if r["split"] == "train"]
    assert steps == list(range(1, 13))


def test_two_processes_end_where_one_does(config, finished, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for mode in ("pmap", "shard_map"):
        workdir = tmp_path / mode
        processes = [
            spawn(
                config,
                workdir,
                f"--coordinator=127.0.0.1:{port}",
                "--processes=2",
                f"--process={number}",
                f"--config.parallel={mode}",
                devices=2,
            )
            for number in range(2)
        ]
        ends = [process.communicate(timeout=300) for process in processes]
        assert [p.returncode for p in processes] == [0, 0], ends[0][1] + ends[1][1]
        result = json.loads((workdir / "result.json").read_text())
        assert (result["devices"], result["parallel"]) == (4, mode)
        assert result["frozen_unchanged"] is True
        one, two = base_and_tuned(finished[0])[1], base_and_tuned(workdir)[1]
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


def test_a_finished_run_is_not_run_again(config, finished, capsys):
    workdir = finished[0]
    before = (workdir / "result.json").stat().st_mtime_ns
    assert train_command.main(command(config, workdir)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(workdir / "result.json")
    assert (workdir / "result.json").stat().st_mtime_ns == before


REFUSED = {
    "unknown key": (["--config.train_step=3"], "did you mean 'train_steps'"),
    "unknown method": (["--config.method.name=gsp"], "no method named 'gsp'"),
    "unknown task": (["--config.task.name=emojy"], "did you mean 'emoji'"),
    "unknown backbone": (["--config.backbone.name=resnte"], "did you mean 'resnet'"),
    "unknown block": (
        ["--config.method.name=blocks", "--config.method.names=('hiden01',)"],
        "'hidden01'",
    ),
    "regex without match": (
        ["--config.method.name=blocks", "--config.method.pattern=conv.*"],
        "conv.*",
    ),
    "missing weights": (
        ["--config.backbone.name=vit", "--config.backbone.weights=/no/such.npz"],
        "/no/such.npz",
    ),
    "too large a budget": (
        ["--config.method.fraction=None", "--config.method.count=99999999"],
        "99999999",
    ),
    "batch larger than data": (["--config.batch_size=5000"], "batch_size=5000"),
    "unknown optimizer": (["--config.optimizer.name=adamm"], "did you mean"),
    "unknown dtype": (["--config.dtype=float16"], "float16"),
    "unknown way of driving devices": (["--config.parallel=pamp"], "'pmap'"),
    "no config": ([], "is not there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_exit_2_and_writes_nothing(
    config, tmp_path, capsys, case
):
    more, message = REFUSED[case]
    path = config if more else config.with_name("missing.py")
    workdir = tmp_path / "workdir"
    assert train_command.main(command(path, workdir, *more)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not workdir.exists()


def test_a_workdir_of_another_config_is_refused_untouched(config, finished, capsys):
    workdir = finished[0]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    assert train_command.main(command(config, workdir, "--config.seed=7")) == 2
    assert "seed is 0 there and 7 here" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    config, tmp_path, capsys
):
    # The rate is 0 at the first step and far too large at the second.
    more = [
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.name=sgd",
        "--config.optimizer.warmup_steps=8",
        "--config.save_steps=1",
    ]
    assert train_command.main(command(config, tmp_path, *more)) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert "not finite" in err or "is nan" in err or "is inf" in err
    assert not (tmp_path / "result.json").exists()
    assert train_command.main(command(config, tmp_path, *more)) == 1
    assert "resuming after step" in capsys.readouterr().err
