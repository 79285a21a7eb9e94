"""One JSON a study: everything that was measured is read back from it."""

import datetime
import json
import shutil

import grids
import pytest

from subtune_jax.commands import bench, seeds
from subtune_jax.report import tables
from subtune_jax.study import study_file

SEEDS_CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=100, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(8,))
    config.method = dict(name="head")
    config.batch_size = 8
    config.train_steps = 2
    return config
"""


@pytest.fixture
def exported(grid_config, finished, tmp_path):
    """A copy of the comparison, exported by its command."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    path = tmp_path / "results" / "small.json"
    assert grids.run(grid_config, folder, f"--export={path}") == 0
    return path


def test_every_result_is_read_back_to_the_last_digit(exported, finished):
    study = study_file.read(exported)
    files = sorted(finished.rglob("result.json"))
    assert len(files) == 16  # 2 tasks x 2 methods x (3 rates of one seed, 1 of another)
    assert len(study["runs"]) == len(files)
    for file in files:
        name = file.parent.relative_to(finished).as_posix()
        assert study["runs"][name] == json.loads(file.read_text())


def test_what_compare_wrote_follows_from_the_file(exported, finished):
    compared = grids.content(finished)
    summary = study_file.summary(study_file.read(exported))
    assert json.loads(json.dumps(summary)) == {key: compared[key] for key in summary}
    text = tables.markdown(summary["rows"]) + tables.correlations(summary["profiles"])
    assert text == (finished / "compare.md").read_text()


def test_the_file_says_by_which_command_and_when_it_was_measured(exported, tmp_path):
    content = json.loads(exported.read_text())
    assert content["study"] == "small"
    assert content["command"].startswith("subtune compare --config=")
    assert content["command"].endswith(f"--export={exported}")
    days = [datetime.date.fromisoformat(day) for day in content["measured"].values()]
    today = datetime.datetime.now(datetime.UTC).date()
    assert days[0] <= days[1] <= today
    assert (today - days[0]).days <= 1
    assert set(content) == {
        "study", "command", "measured", "config", "versions", "same", "runs"
    }  # fmt: skip


def test_nothing_that_repeats_is_in_the_file_of_a_study(exported, finished):
    whole = sum(file.stat().st_size for file in finished.rglob("result.json"))
    assert exported.stat().st_size < whole / 4
    runs = json.loads(exported.read_text())["runs"]
    assert runs["distance/head_rate3_seed3"]["config"] == {
        "seed": 3,
        "task": {"property": "distance"},
        "optimizer": {"learning_rate": 0.03},
    }


def test_the_picture_of_costs_lies_next_to_the_file(exported):
    assert [path.name for path in exported.parent.glob("*.png")] == ["small.png"]


def test_a_rate_that_failed_is_still_the_worst(grid_config, tmp_path):
    lines = [*grids.ONE, "rates = (3e40, 1e-3)"]
    config = grids.changed(grid_config, tmp_path / "some.py", *lines)
    path = tmp_path / "failed.json"
    assert grids.run(config, tmp_path / "all", f"--export={path}") == 0
    (row,) = study_file.summary(study_file.read(path))["rows"]
    assert [rate["validation"] is None for rate in row["rates"]] == [False, True]


def test_seeds_and_benchmarks_are_exported_by_the_same_code(tmp_path):
    config = tmp_path / "seeds.py"
    config.write_text(SEEDS_CONFIG)
    path = tmp_path / "seeds.json"
    given = [f"--config={config}", f"--workdir={tmp_path / 'seeds'}"]
    assert seeds.main([*given, "--count=2", f"--export={path}"]) == 0
    study = study_file.read(path)
    for seed in (0, 1):
        file = tmp_path / "seeds" / f"seed{seed}" / "result.json"
        assert study["runs"][f"seed{seed}"] == json.loads(file.read_text())

    path = tmp_path / "bench.json"
    given = [f"--config={config}", f"--workdir={tmp_path / 'bench'}", "--repeats=1"]
    assert bench.main([*given, "--only=network", f"--export={path}"]) == 0
    whole = json.loads((tmp_path / "bench" / "bench.json").read_text())
    study = study_file.read(path)
    assert {key: study[key] for key in whole} == whole


def test_a_path_that_is_no_json_is_refused_before_anything_runs(
    grid_config, tmp_path, capsys
):
    with grids.counted() as prepare:
        assert grids.run(grid_config, tmp_path / "new", "--export=results/mine") == 2
    assert prepare.call_count == 0
    assert "--export=results/mine; it must be a file" in capsys.readouterr().err


def test_a_file_that_is_no_study_and_an_empty_workdir_are_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is no study"):
        study_file.read(tmp_path / "other.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing is finished in"):
        study_file.write(tmp_path / "empty", tmp_path / "new.json", "command")
    assert not (tmp_path / "new.json").exists()
