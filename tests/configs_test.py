"""Configs: each is complete, says how to run it, and runs, small, to its result."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from subtune_jax.__main__ import COMMANDS
from subtune_jax.commands import configs
from subtune_jax.core import registry
from subtune_jax.core.method import Evidence
from subtune_jax.selection import stages
from subtune_jax.study import grid
from subtune_jax.tasks import vtab
from subtune_jax.training import run as train
from subtune_jax.training.settings import with_changes

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.py"))
VTAB = ("cifar100", "flowers102", "caltech101", "dmlab")
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")
TRANSFER = ("snli", "mnli,snli", "mnli,sick", "snli,mnli", "snli,scitail", "snli,rte")
METHODS = ("dps_dense", "dps_mix", "child_tuning_d", "child_tuning_f", "gmt", "mixout")
METHODS += ("spiel", "random", "bias", "head", "full")
ARGUMENTS = {  # that a file documents, beside those of its commands
    "dps_glue": GLUE,
    "dps_low_resource": [f"{d},{n}" for d in ("cola", "rte") for n in (300, 1000)],
    "dps_movie": METHODS,
    "dps_transfer": TRANSFER,
    "text_study": ("movie", "r8"),
    "gps_study": ("images", "text"),
    "gps_fgvc": ("cub", "flowers", "cars", "dogs"),
    "gps_vtab": vtab.PRESETS,
    "bench_subtuning": ("efficientnet_lite0", "vit_s14"),
    "subtuning_cifar": ("cifar10", "cifar100"),
    "subtuning_elpv": ("efficientnet_lite0", "vit_s14"),
    "subtuning_emoji": ("efficientnet_lite0", "vit_s14"),
    "subtuning_low_data": ("cifar10", "cifar100"),
    "subtuning_released": ("cifar100", "vtab"),
    "subtuning_vtab": [f"{d}{n}" for d in VTAB for n in ("", ",resnet50", ",vit_b16")],
}


def commands(path):
    """(command, config, its argument, overrides) in the order of the docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())).replace("\\\n", " ")
    found = r"subtune (\w+) --config=configs/(\w+)\.py(?::(\S+))? (.*)--workdir=\S+"
    for command, name, argument, more in re.findall(found, text):
        yield command, name, argument, dict(re.findall(r"--config\.(\S+)=(\S+)", more))


def specs():
    """Every file with its default and with each argument that it documents."""
    found = []
    for path in FILES:
        told = [argument for _, _, argument, _ in commands(path)]
        known = dict.fromkeys(["", *told, *ARGUMENTS.get(path.stem, ())])
        found += [f"{path.name}:{argument}".removesuffix(":") for argument in known]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_says_how_to_run_it(path):
    found = list(commands(path))
    assert found
    for command, name, argument, overrides in found:
        assert command in COMMANDS
        assert name == path.stem
        configs.read(f"{path}:{argument}", overrides)


@pytest.mark.parametrize("spec", specs())
def test_a_config_is_complete_with_each_of_its_arguments(spec):
    made = configs.read(f"{FOLDER}/{spec}", {})
    for part, make in configs.SECTIONS.items():
        make(**made[part])
    registry.load("methods", made["method"])
    for job in grid.jobs(grid.make(**made["grid"])):
        changed = with_changes(made, *job.changes)
        registry.load("methods", changed["method"])


@pytest.mark.parametrize(
    "spec, message",
    [
        ("subtuning_vtab.py:cifar10", "did you mean 'cifar100'"),
        ("subtuning_vtab.py:dmlab,vit", "did you mean 'vit_b16'"),
        ("subtuning_released.py:dmlab", "there are cifar100, vtab"),
        ("gps_vtab.py:svh", "did you mean 'svhn'"),
        ("gps_fgvc.py:nabirds", "there are cars, cub, dogs, flowers"),
        ("subtuning_elpv.py:vit", "did you mean 'vit_s14'"),
        ("dps_glue.py:wnli", "did you mean 'qnli' or 'mnli'"),
        ("dps_low_resource.py:rte,50", "there are 1000, 300, 500"),
        ("dps_transfer.py:mnli,scitale", "did you mean 'scitail'"),
        ("dps_transfer.py:rte", "there are mnli, snli"),
        ("dps_movie.py:dps", "did you mean 'dps_mix' or 'dps_dense'"),
        ("text_study.py:imdb", "there are movie, r8"),
        ("gps_study.py:words", "there are images, text"),
    ],
)
def test_an_unknown_argument_is_told(spec, message, tmp_path, capsys):
    assert run("search", spec, tmp_path / "new") == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("arg, blocks", [("cifar100", 16), ("cifar100,vit_b16", 12)])
def test_a_search_of_the_paper_is_over_the_blocks_of_the_paper(arg, blocks):
    made = configs.read(f"{FOLDER}/subtuning_vtab.py:{arg}", {})
    backbone = registry.load("backbones", {**made["backbone"], "weights": None})
    among = made["greedy"]["among"]
    assert sum(bool(re.fullmatch(among, b)) for b in backbone.blocks) == blocks


@pytest.mark.parametrize("arg", ["cifar100", "cifar100,vit_b16"])
def test_without_its_weights_nothing_of_the_paper_starts(
    arg, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with tfds.testing.mock_data(num_examples=20):
        more = ["--config.batch_size=8", "--config.backbone.image_size=32"]
        assert run("search", f"subtuning_vtab.py:{arg}", tmp_path / "new", *more) == 2
    network = "vit_b16" if "vit" in arg else "resnet50"
    err = capsys.readouterr().err
    assert f"no weights file runs/weights/{network}.pth" in err
    assert err.count("\n") == 1 and not (tmp_path / "new").exists()


def test_without_a_folder_of_weights_dps_does_not_start(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tfds.testing.mock_data(num_examples=20):
        assert run("train", "dps_glue.py:rte", tmp_path / "new") == 2
    err = capsys.readouterr().err
    assert "runs/weights/bert-large-cased" in err
    assert err.count("\n") == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("task", "steps", "stage", "dropout"),
    [("mrpc", 690, 34, 0), ("rte", 468, 23, 0), ("stsb", 1080, 54, 0),
     ("cola", 1605, 80, 0), ("sst2", 12630, 631, 0.1)],
)  # fmt: skip
def test_dps_has_the_steps_stages_and_dropout_of_the_released_scripts(
    task, steps, stage, dropout
):
    made = configs.read(f"{FOLDER}/dps_glue.py:{task}", {})
    assert made["train_steps"] == steps and made["backbone"]["dropout"] == dropout
    rest = {key: made["method"][key] for key in ("update_ratio", "stage_steps")}
    seen = Evidence({}, (), lambda params, batch: 0.0, list, train_steps=steps)
    assert stages.length(**rest, evidence=seen) == stage


BLOCKS = ["hidden01", "hidden02"]
SMALL = {
    "report": False,
    "backbone.name": "mlp",
    "backbone.image_size": 8,
    "backbone.widths": "(4, 4)",
    "batch_size": 8,
    "train_steps": 2,
    "greedy.among": ".*",
    "baselines.repeats": 1,
    "baselines.rates": "(1.0,)",
}
DRAWN = {"task.name": "structured", "task.examples": 60, "task.image_size": 16}
DRAWN |= {"train_examples": 0, "validation_examples": 0, "optimizer.probe_steps": 2}
FEWER = {"train_examples": 28, "validation_examples": 12, "grid.sizes": "(20,)"}
RESULTS = {"train": "result"}  # others are called as their command
RUNS = {  # command and config -> what makes it small, beside the above
    ("profile", "subtuning_vtab.py:caltech101"): {"trials.folds": 2},
    ("search", "subtuning_vtab.py:dmlab,vit_b16"): {"trials.folds": 2},
    ("train", "gps_vtab.py:svhn"): {},
    ("train", "gps_fgvc.py:dogs"): {},
    ("search", "subtuning_released.py"): {"trials.folds": 2},
    ("profile", "subtuning_cifar.py:cifar10"): {},
    ("compare", "subtuning_low_data.py"): {
        **FEWER, "trials.folds": 2, "grid.seeds": "(0,)"
    },
    ("profile", "subtuning_elpv.py"): DRAWN,
    ("search", "subtuning_emoji.py:vit_s14"): DRAWN,
}  # fmt: skip

SLOW = (
    ("profile", "subtuning_vtab.py:caltech101"),
    ("search", "subtuning_released.py"),
    ("train", "gps_fgvc.py:dogs"),
)


@pytest.mark.parametrize(
    "command, spec",
    [
        pytest.param(*run, marks=[pytest.mark.slow] if run in SLOW else [])
        for run in RUNS
    ],
)
def test_a_config_runs_to_the_result_of_its_command(command, spec, tmp_path):
    changed = SMALL | RUNS[command, spec]
    more = [f"--config.{key}={value}" for key, value in changed.items()]
    with tfds.testing.mock_data(num_examples=160):
        assert run(command, spec, tmp_path, *more) == 0
    name = RESULTS.get(command, command)
    content = json.loads((tmp_path / f"{name}.json").read_text())
    if command == "profile":
        assert [row["blocks"] for row in content["rows"]][1:3] == [[b] for b in BLOCKS]
    if command == "search":
        assert content["items"] == BLOCKS
        made = configs.read(f"{FOLDER}/{spec}", {})
        named = [row["name"] for row in content["final"]["rows"]]
        assert named == list(made["baselines"]["rows"])
        assert content["rule"] == made["greedy"]["rule"]
    if command == "compare":
        assert {row["train_examples"] for row in content["sizes"]} == {20, 40}


SMALL_TEXTS = {
    "report": False,
    "backbone": {"weights": None, "variant": (8, 1, 2, 16, 97, 8), "length": 8},
    "batch_size": 8,
    "train_steps": 4,
    "train_examples": 0,
    "validation_examples": 0,
}


def test_a_config_of_texts_runs_to_its_result(tmp_path):
    given = configs.read(f"{FOLDER}/dps_transfer.py:snli,scitail", {})
    with tfds.testing.mock_data(num_examples=40):
        made = with_changes(given, SMALL_TEXTS)
        content = json.loads(train.run(made, tmp_path).read_text())
    assert content["frozen_unchanged"] and content["trainable"]["ever"]
    assert content["metrics"]["name"] == "entailment_accuracy"


def run(command, spec, folder, *more):
    main = importlib.import_module(f"subtune_jax.commands.{command}").main
    return main([f"--config={FOLDER}/{spec}", f"--workdir={folder}", *more])
