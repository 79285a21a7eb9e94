"""Lists plug-ins and their arguments: `subtune methods`, `tasks` and `backbones`."""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from subtune_jax.core import registry


def main(package: str, about: str, argv: Sequence[str] | None = None) -> int:
    """Prints what there is or, with a name, its arguments; returns the exit code."""
    parse = argparse.ArgumentParser(
        prog=f"subtune {package}", description=about, allow_abbrev=False
    )
    parse.add_argument("name", nargs="?", metavar="NAME", help="shows its arguments")
    try:
        arguments = parse.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    if arguments.name is None:
        names = registry.plugins(package)
        width = max(map(len, names)) + 2
        for name in names:
            print(f"{name:{width}}{summary(package, name)}")
        return 0
    try:
        registry.check(package, arguments.name)
    except ValueError as error:
        print(f"{parse.prog}: {error}", file=sys.stderr)
        return 2
    print(description(package, arguments.name))
    return 0


def summary(package: str, name: str) -> str:
    """The first sentence of a plug-in's file, which is read and not imported."""
    paragraph = _docstring(package, name).partition("\n\n")[0]
    return " ".join(paragraph.split())


def description(package: str, name: str) -> str:
    """What a plug-in's file says of itself, and its keys."""
    from subtune_jax.commands import keys  # with jax: a list alone need not wait for it

    listing = keys.listing(keys.of_plugin(package, name)) or "  none"
    return f"{_docstring(package, name)}\n\nKeys of the config:\n{listing}"


def _docstring(package: str, name: str) -> str:
    folder = importlib.import_module(f"subtune_jax.{package}").__path__[0]
    source = (Path(folder) / f"{name}.py").read_text()
    return ast.get_docstring(ast.parse(source)) or ""
