"""Evaluation of a delta: what training measured, and only on the right base."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from subtune_jax import delta
from subtune_jax.commands import evaluate as evaluate_command
from subtune_jax.commands import train as train_command
from subtune_jax.core import registry

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=200, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(8, 8))
    config.method = dict(name="last")
    config.batch_size = 16
    config.train_steps = 3
    config.report = False
    return config
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "small.py"
    config.write_text(CONFIG)
    workdir = tmp_path_factory.mktemp("run")
    arguments = [f"--config={config}", f"--workdir={workdir}"]
    assert train_command.main(arguments) == 0
    return workdir, arguments


def test_base_and_delta_score_what_training_measured(run):
    workdir, arguments = run
    result = json.loads((workdir / "result.json").read_text())
    for split in ("validation", "test"):
        assert evaluate_command.main([*arguments, f"--split={split}"]) == 0
        found = json.loads((workdir / "evaluation.json").read_text())
        assert found["metric"]["value"] == result["metrics"][split]
        assert found["base_fingerprint"] == result["base_fingerprint"]


def test_a_delta_of_another_base_is_refused_by_its_first_leaf(run, capsys):
    _, arguments = run
    assert evaluate_command.main([*arguments, "--config.backbone.seed=1"]) == 2
    err = capsys.readouterr().err
    assert "params/hidden01/dense/kernel" in err
    assert err.count("\n") == 1


def test_a_delta_with_other_classes_is_refused(run, capsys):
    _, arguments = run
    more = "--config.task.property=orientation"
    assert evaluate_command.main([*arguments, more]) == 2
    assert "has 8 classes; task structured has 12" in capsys.readouterr().err


def test_a_missing_delta_is_named(run, capsys):
    _, arguments = run
    assert evaluate_command.main([*arguments, "--delta=/no/such"]) == 2
    assert "/no/such" in capsys.readouterr().err


def test_a_delta_loads_into_a_plain_tree(run):
    workdir, _ = run
    backbone = registry.load(
        "backbones", {"name": "mlp", "image_size": 16, "widths": (8, 8)}
    )
    base = jax.tree.map(np.asarray, backbone.load()._asdict())
    tuned = delta.load(workdir / "delta", base)
    assert set(tuned["params"]) == set(backbone.blocks)


def test_a_corrupt_image_stops_the_command_with_its_name(run, tmp_path, capsys):
    _, arguments = run
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(20):
                Image.new("RGB", (16, 16), (number, 0, 0)).save(
                    folder / f"{number}.png"
                )
    (tmp_path / "photos" / "train" / "cat" / "3.png").write_bytes(b"not an image")
    workdir = tmp_path / "workdir"
    more = ["--config.task.name=folder", f"--config.task.path={tmp_path / 'photos'}"]
    assert train_command.main([arguments[0], f"--workdir={workdir}", *more]) == 2
    assert "3.png" in capsys.readouterr().err
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "evaluate"),
        ([], 2, "usage"),
        (["trian"], 2, "did you mean 'train'"),
        (["train", "--help"], 0, "learning_rate"),
        (["train", "--workdir=x"], 2, "--config"),
        (["fetch", "elpw"], 2, "did you mean 'elpv'"),
    ],
)
def test_the_console_script_explains_itself(arguments, code, message):
    done = subprocess.run(
        [sys.executable, "-m", "subtune_jax", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
