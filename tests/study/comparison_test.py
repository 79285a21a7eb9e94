"""The compare command: rates that validation chooses, resumed and shared runs."""

import collections
import concurrent.futures
import json
import shutil
import subprocess
import sys
import time
from unittest import mock

import grids

from subtune_jax.study import comparison, grid
from subtune_jax.training import run


def test_every_seed_trains_at_the_rate_with_the_best_validation_metric(finished):
    rows = {
        (row["task"], row["method"]): row for row in grids.content(finished)["rows"]
    }
    assert list(rows) == grids.PLACES
    factors = set()
    for (task, method), row in rows.items():
        factor = grids.best_factor(finished, task, method, grids.SEEDS[:1])
        factors.add(factor)
        assert row["rate"] == factor * grids.RATES[method]
        ran = {
            (f, seed)
            for f in grids.FACTORS
            for seed in grids.SEEDS
            if grids.result(finished, task, method, f, seed)
        }
        assert ran == {(f, grids.SEEDS[0]) for f in grids.FACTORS} | {
            (factor, grids.SEEDS[1])
        }
    assert len(factors) > 1, "one rate is best everywhere: nothing was tested"


def test_test_metrics_at_other_rates_are_not_read(grid_config, finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    kept = {
        f"{row['method']}_rate{factor:g}_seed{seed}"
        for row in grids.content(finished)["rows"]
        for factor in [
            grids.best_factor(finished, row["task"], row["method"], grids.SEEDS[:1])
        ]
        for seed in grids.SEEDS
        if row["task"] == "count"
    }
    others = [
        path
        for path in (folder / "count").glob("*/result.json")
        if path.parent.name not in kept
    ]
    assert len(others) == 4
    for path in others:  # what is not there cannot be read
        told = json.loads(path.read_text())
        del told["metrics"]["test"], told["cost"], told["trainable"]
        path.write_text(json.dumps(told))
    for name in ("compare.json", "compare.md", "pareto.png"):
        (folder / name).unlink()
    assert grids.run(grid_config, folder) == 0
    for name in ("compare.json", "compare.md"):
        assert (folder / name).read_text() == (finished / name).read_text()


def test_a_finished_comparison_trains_nothing_again(grid_config, finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with grids.counted() as prepare:
        assert grids.run(grid_config, folder) == 0
    assert prepare.call_count == 0
    assert grids.content(folder) == grids.content(finished)


def test_a_killed_comparison_repeats_no_finished_run(grid_config, finished, tmp_path):
    folder = tmp_path / "killed"
    one = grids.changed(grid_config, tmp_path / "one.py", *grids.ONE)
    begun = 0

    def prepare(settings, original=run.prepare):
        nonlocal begun
        begun += 1
        if begun == 3:  # of 3 that vote and 1 more
            raise KeyboardInterrupt
        return original(settings)

    with mock.patch.object(run, "prepare", prepare):
        assert grids.run(one, folder) == 1
    assert not (folder / "compare.json").exists()
    assert len(list(folder.glob("count/*/result.json"))) == 2
    with grids.counted() as again:
        assert grids.run(one, folder) == 0
    assert again.call_count == 2
    whole = grids.content(finished)["rows"][grids.PLACES.index(("count", "head"))]
    (row,) = grids.content(folder)["rows"]
    for key in ("method", "values", "rate", "rates"):
        assert row[key] == whole[key]


def test_processes_share_the_runs_and_none_is_in_hand_twice_at_once(tmp_path):
    names = [f"place/run{number}" for number in range(6)]
    jobs = [(grid.Job("train", name, "", "", "", 0, ()), {}) for name in names]
    busy, first, taken = collections.Counter(), {}, collections.defaultdict(list)

    def work(me):
        for job, _ in comparison._reserved(jobs, tmp_path):
            busy[job.folder] += 1
            assert busy[job.folder] == 1
            if first.setdefault(job.folder, me) == me:
                time.sleep(0.05)  # the other process finds the run finished
            busy[job.folder] -= 1
            taken[me].append(job.folder)

    with mock.patch.object(comparison, "PAUSE_SECONDS", 0.01):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, me) for me in ("one", "other")]:
                done.result(timeout=60)
    assert sorted(taken["one"]) == sorted(taken["other"]) == names
    assert set(first.values()) == {"one", "other"}


def test_a_run_of_a_process_that_was_killed_is_taken_over(tmp_path):
    names = ["held", "free"]
    jobs = [(grid.Job("train", name, "", "", "", 0, ()), {}) for name in names]
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2)"
    command = [sys.executable, "-c", f"{hold}; print('held', flush=True); input()"]
    with subprocess.Popen(
        [*command, tmp_path / ".held.lock"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        taking = comparison._reserved(jobs, tmp_path)
        assert next(taking)[0].folder == "free"
        other.kill()
        with mock.patch.object(comparison, "PAUSE_SECONDS", 0.01):
            assert [job.folder for job, _ in taking] == ["held"]


def test_several_seeds_choose_by_their_mean(grid_config, tmp_path):
    folder = tmp_path / "all"
    lines = [*grids.ONE, "seeds = (3, 4, 5)", "rate_seeds = 2"]
    assert (
        grids.run(grids.changed(grid_config, tmp_path / "three.py", *lines), folder)
        == 0
    )
    (row,) = grids.content(folder)["rows"]
    factor = grids.best_factor(folder, "count", "head", (3, 4))
    assert row["rate"] == factor * grids.RATES["head"]
    assert {
        f for f in grids.FACTORS if grids.result(folder, "count", "head", f, 5)
    } == {factor}
    assert len(row["values"]) == 3


def test_a_rate_that_fails_is_the_worst_and_is_told(grid_config, tmp_path, capsys):
    folder = tmp_path / "all"
    some = grids.changed(
        grid_config, tmp_path / "some.py", *grids.ONE, "rates = (3e40, 1e-3)"
    )
    assert grids.run(some, folder) == 0
    assert "head_rate3e+40_seed3: " in capsys.readouterr().err
    (row,) = grids.content(folder)["rows"]
    assert row["rate"] == 1e-3 * 1e-2
    assert [rate["validation"] is None for rate in row["rates"]] == [False, True]
    none = grids.changed(
        grid_config, tmp_path / "none.py", *grids.ONE, "rates = (3e40,)"
    )
    assert grids.run(none, tmp_path / "none") == 1
    assert "training failed at every learning rate: 3e+38" in capsys.readouterr().err


def test_without_rates_folders_and_rates_are_the_configs_own(grid_config, tmp_path):
    folder = tmp_path / "all"
    lines = "rates = ()", "tasks = dict(count={})"
    assert (
        grids.run(grids.changed(grid_config, tmp_path / "own.py", *lines), folder) == 0
    )
    names = {path.parent.name for path in folder.glob("count/*/result.json")}
    assert names == {"head3", "head4", "random3", "random4"}
    rows = grids.content(folder)["rows"]
    assert [row["rate"] for row in rows] == [1e-2, 3e-2]
    assert not any("rates" in row for row in rows)
