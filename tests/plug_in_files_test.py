"""Files of tasks/ and backbones/ stand on public names and on what is theirs to use."""

import ast
from pathlib import Path

import pytest

import subtune_jax as st
from subtune_jax.core import registry

PACKAGE = Path(st.__file__).parent
FILES = [
    PACKAGE / wing / f"{name}.py"
    for wing in ("tasks", "backbones")
    for name in registry.plugins(wing)
]
ALLOWED = ("data", "models", "fetch", "core.registry", "core.losses")


def imported(path):
    """What the file imports of this package, public names apart: `data.images`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            top, _, rest = module.partition(".")
            if top == "subtune_jax" and rest not in st.__all__:
                yield rest


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_plug_in_imports_nothing_deeper_than_it_must(path):
    for module in imported(path):
        assert module.startswith(ALLOWED), module
