"""A small comparison: two tasks, two methods, two seeds, three rates; and its runs."""

import contextlib
import json
from unittest import mock

from subtune_jax.commands import compare
from subtune_jax.training import run as training_run
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


def changed(config, path, *lines):
    """A config of its own, with `lines` at the end of the other."""
    more = "".join(f"    config.grid.{line}\n" for line in lines)
    path.write_text(config.read_text().replace("    return", f"{more}    return"))
    return path


def run(config, folder, *more):
    return compare.main([f"--config={config}", f"--workdir={folder}", *more])


def content(folder):
    return json.loads((folder / "compare.json").read_text())


def result(folder, task, method, factor, seed):
    path = folder / task / f"{method}_rate{factor:g}_seed{seed}" / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def best_factor(folder, task, method, seeds):
    """The factor by definition: the smallest of those with the best mean."""
    best, factor_of_best = None, None
    for factor in sorted(FACTORS):
        metrics = [result(folder, task, method, factor, s)["metrics"] for s in seeds]
        mean = sum(metric["validation"] for metric in metrics) / len(seeds)
        if best is None or mean > best:
            best, factor_of_best = mean, factor
    return factor_of_best


@contextlib.contextmanager
def counted():
    """A patch under which every training that begins is counted."""
    prepare = mock.Mock(wraps=setup.prepare)
    with (  # trainings import it by name, profiles and searches with its module
        mock.patch.object(setup, "prepare", prepare),
        mock.patch.object(training_run, "prepare", prepare),
    ):
        yield prepare
