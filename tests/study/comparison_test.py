"""The compare command: rates that validation chooses, what is told, shared runs."""

import collections
import concurrent.futures
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from subtune_jax.commands import compare as compare_command
from subtune_jax.report import tables
from subtune_jax.study import comparison, grid
from subtune_jax.training import setup

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured", examples=200, image_size=16)
    config.backbone = dict(name="mlp", image_size=16, widths=(16, 16))
    config.method = dict(name="head")
    config.optimizer = dict(learning_rate=1e-2)
    config.batch_size = 16
    config.train_steps = 9
    config.eval_steps = 0
    config.save_steps = 0
    sparse = dict(name="random", count=1, extras=".*bias")
    config.grid = dict(
        tasks=dict(count={}, distance=dict(task=dict(property="distance"))),
        methods=dict(
            head={},
            random=dict(method=sparse, optimizer=dict(learning_rate=3e-2)),
        ),
        seeds=(3, 4),
        rates=(3.0, 0.001, 0.3),
    )
    return config
"""
FACTORS, SEEDS = (3.0, 0.001, 0.3), (3, 4)
RATES = {"head": 1e-2, "random": 3e-2}
ONE = ("tasks = dict(count={})", "methods = dict(head={})")  # task, method
PLACES = [(task, method) for method in RATES for task in ("count", "distance")]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "rates.py"
    path.write_text(CONFIG)
    return path


def changed(config, path, *lines):
    """A config of its own, with `lines` at the end of the other."""
    more = "".join(f"    config.grid.{line}\n" for line in lines)
    path.write_text(config.read_text().replace("    return", f"{more}    return"))
    return path


def run(config, folder, *more):
    return compare_command.main([f"--config={config}", f"--workdir={folder}", *more])


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The folder of a whole comparison; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "all"
    assert run(config, folder) == 0
    return folder


def content(folder):
    return json.loads((folder / "grid.json").read_text())


def result(folder, task, method, factor, seed):
    path = folder / task / f"{method}_rate{factor:g}_seed{seed}" / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def chosen(folder, task, method, seeds):
    """The factor by definition: the smallest of those with the best mean."""
    best, found = None, None
    for factor in sorted(FACTORS):
        metrics = [result(folder, task, method, factor, s)["metrics"] for s in seeds]
        mean = sum(metric["validation"] for metric in metrics) / len(seeds)
        if best is None or mean > best:
            best, found = mean, factor
    return found


def counted():
    """A patch under which every training that begins is counted."""
    return mock.patch.object(setup, "prepare", wraps=setup.prepare)


def test_every_seed_trains_at_the_rate_with_the_best_validation_metric(finished):
    rows = {(row["task"], row["method"]): row for row in content(finished)["rows"]}
    assert list(rows) == PLACES
    factors = set()
    for (task, method), row in rows.items():
        factor = chosen(finished, task, method, SEEDS[:1])
        factors.add(factor)
        assert row["rate"] == factor * RATES[method]
        ran = {
            (f, seed)
            for f in FACTORS
            for seed in SEEDS
            if result(finished, task, method, f, seed)
        }
        assert ran == {(f, SEEDS[0]) for f in FACTORS} | {(factor, SEEDS[1])}
    assert len(factors) > 1, "one rate is best everywhere: nothing was tested"


def test_the_table_has_the_values_of_the_results(finished):
    for row in content(finished)["rows"]:
        task, method = row["task"], row["method"]
        factor = chosen(finished, task, method, SEEDS[:1])
        runs = [result(finished, task, method, factor, seed) for seed in SEEDS]
        tests = [one["metrics"]["test"] for one in runs]
        assert row["values"] == tests
        assert row["mean"] == pytest.approx(np.mean(tests))
        assert row["std"] == pytest.approx(np.std(tests, ddof=1))
        validations = [one["metrics"]["validation"] for one in runs]
        assert row["validation"] == pytest.approx(np.mean(validations))
        for key in ("selected", "extras", "head", "fraction"):
            assert row[key] == pytest.approx(runs[0]["trainable"][key])
        costs = [one["cost"] for one in runs]
        for key in ("optimizer_bytes", "delta_bytes"):
            assert row[key] == pytest.approx(np.mean([cost[key] for cost in costs]))
        seconds = [cost["train_seconds"] / 9 for cost in costs]
        assert row["step_seconds"] == pytest.approx(np.mean(seconds))
        assert row["rates"] == [
            {
                "rate": f * RATES[method],
                "validation": result(finished, task, method, f, SEEDS[0])["metrics"][
                    "validation"
                ],
            }
            for f in sorted(FACTORS)
        ]
        # One input of each of 16 neurons in two layers; the biases of their norms.
        assert row["selected"] == row["extras"] == {"head": 0, "random": 32}[method]


def test_a_table_of_trainings_has_its_own_columns(finished):
    text = (finished / "grid.md").read_text()
    first, second = text.split("### ")[1:]
    assert first.startswith("count / \n") and second.startswith("distance / \n")
    rows = [row for row in content(finished)["rows"] if row["task"] == "count"]
    row = max(rows, key=lambda row: row["mean"])
    lines = first.splitlines()
    assert lines[2] == (
        "| method | test | worst | failed | drift | selected | extras | head "
        "| optimiser kB | step ms | rate |"
    )
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == [
        row["method"],
        f"{row['mean']:.3f} ± {row['std']:.3f}",
        f"{min(row['values']):.3f}",
        f"{row['failed']:.0%}",
        "",
        f"{row['selected']:.0f}",
        f"{row['extras']:.0f}",
        f"{row['head']:.0f}",
        f"{row['optimizer_bytes'] / 1000:.0f}",
        f"{row['step_seconds'] * 1000:,.1f}",
        f"{row['rate']:.3g}",
    ]


def test_test_metrics_at_other_rates_are_not_read(config, finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    kept = {
        f"{row['method']}_rate{factor:g}_seed{seed}"
        for row in content(finished)["rows"]
        for factor in [chosen(finished, row["task"], row["method"], SEEDS[:1])]
        for seed in SEEDS
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
    for name in ("grid.json", "grid.md", "pareto.png"):
        (folder / name).unlink()
    assert run(config, folder) == 0
    for name in ("grid.json", "grid.md"):
        assert (folder / name).read_text() == (finished / name).read_text()


def test_a_finished_comparison_trains_nothing_again(config, finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with counted() as prepare:
        assert run(config, folder) == 0
    assert prepare.call_count == 0
    assert content(folder) == content(finished)


def test_a_killed_comparison_repeats_no_finished_run(config, finished, tmp_path):
    folder = tmp_path / "killed"
    one = changed(config, tmp_path / "one.py", *ONE)
    begun = 0

    def prepare(settings, made=setup.prepare):
        nonlocal begun
        begun += 1
        if begun == 3:  # of 3 that vote and 1 more
            raise KeyboardInterrupt
        return made(settings)

    with mock.patch.object(setup, "prepare", prepare):
        assert run(one, folder) == 1
    assert not (folder / "grid.json").exists()
    assert len(list(folder.glob("count/*/result.json"))) == 2
    with counted() as again:
        assert run(one, folder) == 0
    assert again.call_count == 2
    whole = content(finished)["rows"][PLACES.index(("count", "head"))]
    (row,) = content(folder)["rows"]
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


def test_several_seeds_choose_by_their_mean(config, tmp_path):
    folder = tmp_path / "all"
    lines = [*ONE, "seeds = (3, 4, 5)", "rate_seeds = 2"]
    assert run(changed(config, tmp_path / "three.py", *lines), folder) == 0
    (row,) = content(folder)["rows"]
    factor = chosen(folder, "count", "head", (3, 4))
    assert row["rate"] == factor * RATES["head"]
    assert {f for f in FACTORS if result(folder, "count", "head", f, 5)} == {factor}
    assert len(row["values"]) == 3


def test_the_best_rate_is_the_smallest_with_the_largest_mean():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, seeds = rng.integers(1, 5, 2)
        values = {
            float(rate): list(rng.integers(0, 3, seeds) / 4)
            for rate in rng.permutation([0.1, 0.3, 1.0, 3.0])[:count]
        }
        sums = {rate: sum(found) for rate, found in values.items()}
        least = min(rate for rate in sums if sums[rate] == max(sums.values()))
        assert grid.best(values) == least


def test_a_rate_that_fails_is_the_worst_and_is_told(config, tmp_path, capsys):
    folder = tmp_path / "all"
    some = changed(config, tmp_path / "some.py", *ONE, "rates = (3e40, 1e-3)")
    assert run(some, folder) == 0
    assert "head_rate3e+40_seed3: " in capsys.readouterr().err
    (row,) = content(folder)["rows"]
    assert row["rate"] == 1e-3 * 1e-2
    assert [one["validation"] is None for one in row["rates"]] == [False, True]
    none = changed(config, tmp_path / "none.py", *ONE, "rates = (3e40,)")
    assert run(none, tmp_path / "none") == 1
    assert "training failed at every learning rate: 3e+38" in capsys.readouterr().err


def test_without_rates_folders_and_rates_are_the_configs_own(config, tmp_path):
    folder = tmp_path / "all"
    lines = "rates = ()", "tasks = dict(count={})"
    assert run(changed(config, tmp_path / "own.py", *lines), folder) == 0
    names = {path.parent.name for path in folder.glob("count/*/result.json")}
    assert names == {"head3", "head4", "random3", "random4"}
    rows = content(folder)["rows"]
    assert [row["rate"] for row in rows] == [1e-2, 3e-2]
    assert not any("rates" in row for row in rows)


def test_the_table_of_the_searches_on_record_is_reproduced():
    folder = Path(__file__).parents[1] / "results" / "subtuning"
    told = content(folder)
    text = tables.markdown(told["rows"]) + tables.correlations(told["profiles"])
    assert text == (folder / "grid.md").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("methods = {}", "rates=(3.0, 0.001, 0.3) without grid.methods"),
        ("methods.a = dict(method=dict(name='biass'))", "did you mean 'bias'"),
        ("methods.a = dict(methd={})", "no config key 'methd'"),
        ("rates = (1.0, 0.0)", "grid.rates=(1.0, 0.0); they must be distinct"),
        ("rates = (1.0, 1.0000001)", "they must be distinct positive factors"),
        ("rates = (1.0, 'two')", "they must be distinct positive factors"),
        ("rate_seeds = 3", "grid.rate_seeds=3; it must be in [1, 2]"),
        ("rate_seeds = 0", "grid.rate_seeds=0; it must be in [1, 2]"),
        ("methods = {}; config.grid.rates = ()", "compare has no methods"),
        ("seeds = ()", "grid.seeds=(); at least one is needed"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    config, tmp_path, capsys, line, message
):
    folder = tmp_path / "new"
    with counted() as prepare:
        assert run(changed(config, tmp_path / "bad.py", line), folder) == 2
    assert prepare.call_count == 0
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("rates", [0.5, "0.5", {"a": 1.0}])
def test_rates_that_are_no_sequence_are_refused(rates):
    with pytest.raises(ValueError, match="they must be distinct positive factors"):
        grid.make(methods={"head": {}}, rates=rates)
