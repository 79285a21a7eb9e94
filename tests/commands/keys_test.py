"""Every key of a config is explained, on the terminal and on its page."""

import importlib
import sys

import pytest

from subtune_jax import __main__
from subtune_jax.commands import catalogue, configs, keys
from subtune_jax.core import registry
from subtune_jax.training import settings

PLUGINS = [(p, n) for p in settings.PLUGINS.values() for n in registry.plugins(p)]


def unexplained(listed):
    return [key.name for key in listed if not key.meaning or not key.kind]


def test_every_key_of_no_section_is_explained():
    assert len(keys.top()) > 10 and not unexplained(keys.top())


@pytest.mark.parametrize("section", configs.SECTIONS)
def test_every_key_of_a_section_is_explained(section):
    assert keys.of_section(section) and not unexplained(keys.of_section(section))


@pytest.mark.parametrize("package, name", PLUGINS)
def test_every_key_of_a_plug_in_is_explained(package, name):
    assert not unexplained(keys.of_plugin(package, name))


def test_a_key_without_a_sentence_is_told():
    def make(known: int = 1, forgotten: float = 2.0):
        """A part.

        Args:
          known: a number,
            over two lines.

        Raises:
          ValueError: never.
        """

    known, forgotten = keys._keys("part.", make)
    assert known == ("part.known", "int", "1", "a number, over two lines.")
    assert forgotten == ("part.forgotten", "float", "2.0", "")


def test_a_key_that_must_be_given_has_no_default():
    (path, *_) = keys.of_plugin("tasks", "folder")
    assert (path.name, path.default) == ("task.path", "")
    assert "task.path: str, must be given" in keys.listing([path])


def test_every_section_is_read_by_some_command():
    read = {part for sections in keys.SECTIONS.values() for part in sections}
    assert read == set(configs.SECTIONS)
    assert set(keys.SECTIONS) < set(__main__.COMMANDS)


@pytest.mark.parametrize("command", keys.SECTIONS)
def test_help_lists_the_keys_that_a_command_reads(command, capsys):
    main = importlib.import_module(f"subtune_jax.commands.{command}").main
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for key in keys.of_command(command):
        assert f"  {key.name}: {key.kind}" in shown
    assert ("greedy.epsilon" in shown) == (command in ("search", "compare"))


@pytest.mark.parametrize("package", settings.PLUGINS.values())
def test_plug_ins_are_listed_with_one_line_each(package, capsys):
    assert catalogue.main(package, "", []) == 0
    lines = capsys.readouterr().out.splitlines()
    names = registry.plugins(package)
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 3 for line in lines)


def test_a_list_of_plug_ins_imports_none(capsys):
    loaded = set(sys.modules)
    assert catalogue.main("tasks", "", []) == 0
    new = set(sys.modules) - loaded
    assert not [name for name in new if name.startswith("subtune_jax.tasks.")]


def test_a_name_shows_its_source_and_its_arguments(capsys):
    assert catalogue.main("methods", "", ["gps"]) == 0
    shown = capsys.readouterr().out
    assert "arXiv:2312.10136" in shown
    listed = keys.of_plugin("methods", "gps")
    assert "method.k" in [key.name for key in listed]
    assert shown.endswith(f"Keys of the config:\n{keys.listing(listed)}\n")


def test_a_misspelt_name_is_told_in_one_line(capsys):
    assert catalogue.main("methods", "", ["gsp"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'gps'" in error and error.count("\n") == 1
