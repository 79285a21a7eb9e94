"""What a file in methods/ is: presets, imports, and words about every argument."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

import subtune_jax
from subtune_jax.core import registry

METHODS = registry.plugins("methods")
ROOT = Path(subtune_jax.__file__).parents[1]
PLUGINS = [ROOT / "subtune_jax" / "methods" / f"{name}.py" for name in METHODS]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def module(name):
    return importlib.import_module(f"subtune_jax.methods.{name}")


PRESETS = [name for name in METHODS if hasattr(module(name), "PRESET")]


@pytest.mark.parametrize("file", PLUGINS + CONFIGS, ids=lambda file: file.stem)
def test_methods_and_configs_import_public_names_alone(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert not [name for name in names if name.startswith("subtune_jax")]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if node.module.split(".")[0] == "subtune_jax":
                assert node.module == "subtune_jax"
                assert {alias.name for alias in node.names} <= set(subtune_jax.__all__)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_does_and_what_each_argument_is(name):
    first = module(name).__doc__.splitlines()[0]
    assert 20 < len(first) < 89 and first.endswith(".") and ": " in first
    make = registry.maker("methods", name)
    section = (make.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    said = re.findall(r"^      (\w+): (\S.{10,})", section, re.M)
    assert "as in" not in section  # a page shows each argument by itself
    assert [key for key, _ in said] == list(registry.arguments(make))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_another_method_with_other_defaults(name):
    preset = dict(module(name).PRESET)
    base = registry.arguments(registry.maker("methods", preset.pop("name")))
    assert preset and not hasattr(module(name), "make")
    assert registry.arguments(registry.maker("methods", name)) == base | preset
    assert any(preset[key] != base[key] for key in preset)


@pytest.fixture
def plugin(monkeypatch):
    """Adds a file of this text to methods/, for a test alone."""

    def add(name, **content):
        file = type(sys)(f"subtune_jax.methods.{name}")
        vars(file).update(content)
        monkeypatch.setitem(sys.modules, file.__name__, file)
        listed = [*registry.plugins("methods"), name]
        monkeypatch.setattr(registry, "plugins", lambda package: listed)

    return add


def test_arguments_of_a_preset_are_defaults_that_may_be_overridden(plugin):
    plugin("below", make=lambda a=1, b=2, c=3: (a, b, c))
    plugin("middle", PRESET={"name": "below", "a": 10, "b": 20})
    plugin("above", PRESET={"name": "middle", "b": 200})
    assert registry.load("methods", {"name": "middle"}) == (10, 20, 3)
    assert registry.load("methods", {"name": "above"}) == (10, 200, 3)
    assert registry.load("methods", {"name": "above", "a": 0, "c": 0}) == (0, 200, 0)
    with pytest.raises(ValueError, match="method 'above' takes no 'd'; there are a, b"):
        registry.load("methods", {"name": "above", "d": 0})


def test_a_preset_of_what_is_not_there_is_refused(plugin):
    plugin("below", make=lambda a=1: a)
    plugin("typo", PRESET={"name": "below", "aa": 1})
    plugin("lost", PRESET={"name": "beloww"})
    with pytest.raises(ValueError, match="method 'typo' takes no 'aa'; did you mean"):
        registry.load("methods", {"name": "typo"})
    with pytest.raises(ValueError, match="no method named 'beloww'; did you mean 'bel"):
        registry.load("methods", {"name": "lost"})


def test_folders_are_no_plugins(monkeypatch, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()
    (tmp_path / "own.py").touch()
    root = importlib.import_module("subtune_jax.methods")
    monkeypatch.setattr(root, "__path__", [str(tmp_path)])
    assert registry.plugins("methods") == ["own"]
