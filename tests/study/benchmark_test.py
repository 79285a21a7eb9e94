"""The benchmark command: each benchmark once, and what it refuses."""

import json
from pathlib import Path
from unittest import mock

import pytest

from subtune_jax.commands import bench, configs
from subtune_jax.core import registry
from subtune_jax.study import benches, benchmark
from subtune_jax.study.benches import start

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=200, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(64, 64))
    config.method = dict(name="random", fraction=0.1)
    config.optimizer = dict(weight_decay=0.1, clip_norm=1.0, probe_steps=5)
    config.batch_size = 24
    config.train_steps = 8
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def test_the_command_measures_each_benchmark_once(config, tmp_path, capsys):
    command = [f"--config={config}", f"--workdir={tmp_path}", "--repeats=1"]
    only = "--only=network,inputs"
    assert bench.main([*command, only]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "bench.json")
    assert "holds" in err
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["machine"]["devices"] == 8
    assert list(content["benchmarks"]) == ["network", "inputs"]
    crossed = content["benchmarks"]["network"]
    for moved in crossed["all_reduced"].values():  # of this process's eight devices
        assert 4 * crossed["trained"] <= moved <= crossed["limit"]
    for result in content["benchmarks"].values():
        assert only in result["command"]
        assert len(result["load_average"]["before"]) == 3
        assert all({"what", "value", "limit"} < set(row) for row in result["checks"])
    with mock.patch.object(benchmark, "_measured", side_effect=AssertionError):
        assert bench.main([*command, only]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only=selektion"], "did you mean 'selection'? there are blocks, buckets"),
        (["--repeats=0"], "--repeats=0"),
        (["--config.method.name=gsp"], "no method named 'gsp'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(config, tmp_path, capsys, more, message):
    folder = tmp_path / "new"
    assert bench.main([f"--config={config}", f"--workdir={folder}", *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.slow
def test_a_second_start_compiles_nothing(config):
    figures = start.run(mock.Mock(settings=configs.read(str(config), {})))
    assert figures["first"]["compiled"] > 10
    assert figures["second"]["programs"] == figures["first"]["programs"]
    assert figures["second"]["compiled"] == 0


def test_a_new_benchmark_is_one_new_file(config, tmp_path, monkeypatch):
    file = tmp_path / "constant.py"
    file.write_text(
        "from subtune_jax.study import timing\n"
        "def run(setup, repeats):\n"
        "    return {'checks': [timing.check(setup.backbone.name, repeats, 3)]}\n"
    )
    monkeypatch.setattr(benches, "__path__", [*benches.__path__, str(tmp_path)])
    workdir = tmp_path / "work"
    command = [f"--config={config}", f"--workdir={workdir}", "--repeats=2"]
    assert bench.main([*command, "--only=constant"]) == 0
    content = json.loads((workdir / "bench.json").read_text())
    (check,) = content["benchmarks"]["constant"]["checks"]
    assert check == {"what": "mlp", "value": 2, "limit": 3, "holds": True}


def test_no_benchmark_imports_another():
    for name in registry.plugins("study.benches"):
        (folder,) = benches.__path__
        text = (Path(folder) / f"{name}.py").read_text()
        assert "subtune_jax.study.benches import" not in text, name
        assert "from subtune_jax.study.benches." not in text, name
