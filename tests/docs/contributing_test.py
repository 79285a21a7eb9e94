"""The plug-ins of CONTRIBUTING work with one new file each and no other edit."""

import importlib
import os
import shutil
import subprocess
import sys

import pages
import pytest

import subtune_jax as st
from subtune_jax.commands import keys
from subtune_jax.core import registry

FILES = {  # methods/steepest.py -> its text
    block.note.removeprefix("file="): block.text
    for block in pages.blocks(pages.ROOT / "CONTRIBUTING.md", "python")
}
KINDS = ("methods", "backbones", "tasks")


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The plug-ins beside the package's own: (kind, name) of each."""
    found = []
    for file, text in FILES.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        found.append((path.parent.name, path.stem))
    for kind in KINDS:
        package = importlib.import_module(f"subtune_jax.{kind}")
        paths = [*package.__path__, str(tmp_path / kind)]
        monkeypatch.setattr(package, "__path__", paths)
    importlib.invalidate_caches()
    yield found
    for kind, name in found:
        sys.modules.pop(f"subtune_jax.{kind}.{name}", None)
        vars(importlib.import_module(f"subtune_jax.{kind}")).pop(name, None)


def test_there_is_an_example_of_every_kind(added):
    assert sorted(kind for kind, _ in added) == sorted(KINDS)


def test_the_examples_are_found_by_name_and_explain_their_keys(added):
    for kind, name in added:
        assert name in registry.plugins(kind)
        assert all(key.meaning for key in keys.of_plugin(kind, name))


def test_the_commands_for_the_examples_exist(added, monkeypatch, capsys):
    monkeypatch.chdir(pages.ROOT)
    shown = list(pages.commands(pages.ROOT / "CONTRIBUTING.md"))
    assert len(shown) >= 2
    for words in shown:
        pages.check(words, capsys)


def test_the_examples_train_together(added, tmp_path):
    method, backbone, task = (
        {"name": name, **importlib.import_module(f"subtune_jax.{kind}.{name}").TINY}
        for kind, name in added
    )
    config = {"method": method, "backbone": {**backbone, "image_size": 16}}
    config |= {"task": task, "train_steps": 4, "batch_size": 8, "report": False}
    result = st.run(config, tmp_path / "run")
    assert result["frozen_unchanged"]
    assert 0 < result["trainable"]["selected"] < result["trainable"]["base"] / 50


@pytest.mark.slow  # runs the promises of three folders
def test_the_examples_keep_the_promises_of_their_folders(tmp_path):
    for folder in ("subtune_jax", "tests", "configs", "docs"):
        skipped = shutil.ignore_patterns("__pycache__", "_build", "generated")
        shutil.copytree(pages.ROOT / folder, tmp_path / folder, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(pages.ROOT / name, tmp_path)
    for file, text in FILES.items():
        (tmp_path / "subtune_jax" / file).write_text(text)
    names = " or ".join(file.split("/")[1].removesuffix(".py") for file in FILES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", names]
        + [f"tests/{kind}" for kind in KINDS]
        + ["tests/commands/keys_test.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout
