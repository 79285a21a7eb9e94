"""What the README shows runs as it is shown, and it is short."""

import re

import jax
import pages

from subtune_jax import __main__
from subtune_jax.core import registry

README = pages.ROOT / "README.md"


def test_the_loop_of_ones_own_runs_and_restores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here: dict = {"__name__": "readme"}
    for block in pages.blocks(README, "python"):
        exec(compile(block.text, "README.md", "exec"), here)
    before, after, again = (here[name] for name in ("params0", "params", "restored"))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), after, again)
    assert jax.tree.all(same)
    moved = after["dense"]["kernel"] != before["dense"]["kernel"]
    assert moved.sum(0).tolist() == [1, 1, 1, 1]
    assert capsys.readouterr().err == ""


def test_the_readme_is_at_most_seven_kilobytes():
    assert len(README.read_bytes()) <= 7000


def test_the_readme_names_every_command_and_no_method_that_is_not_there():
    named = set(re.findall(r"`(\w+)`", README.read_text()))
    assert set(__main__.COMMANDS) <= named
    families = README.read_text().split("## ")  # a new method needs no line there
    (methods,) = [part for part in families if part.startswith("Methods")]
    listed = set(re.findall(r"`([a-z]\w+)`", methods))
    assert len(listed & set(registry.plugins("methods"))) > 30


def test_every_wing_is_in_the_map_of_the_readme_and_of_the_architecture():
    wings = [
        path.parent.name for path in (pages.ROOT / "subtune_jax").glob("*/__init__.py")
    ]
    architecture = (pages.ROOT / "docs" / "architecture.md").read_text()
    for wing in wings:
        assert f"`{wing}/`" in README.read_text(), wing
        assert f"\n  {wing}/" in architecture, wing


def test_every_file_that_the_architecture_names_is_there():
    text = (pages.ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(
        r"`((?:subtune_jax|training|optim|subtuning)/\w[\w/]*\.py)`", text
    )
    assert len(named) > 10
    for name in named:
        path = name if name.startswith("subtune_jax") else f"subtune_jax/{name}"
        assert (pages.ROOT / path).exists(), name
