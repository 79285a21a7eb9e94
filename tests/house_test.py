"""The house: rooms, floors and names of `docs/architecture.md`, read from the code.

An import counts wherever it stands: at the top, in a function, under TYPE_CHECKING, by
a public name of the root, or as the name of a plug-in's folder that is given to the
registry.
"""

import ast
import collections
import functools
import re
import sys
from pathlib import Path

import pytest

import subtune_jax

ROOT = Path(subtune_jax.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
WINGS = (  # from the top floor down
    "commands study subtuning training serving methods backbones tasks optim report "
    "scores sparse_step selection delta models data fetch core"
).split()
# Files whose names users type: commands, plug-ins and benchmarks.
USERS = ("commands", "methods", "backbones", "tasks", "study.benches")
BY_NAME = ("load", "plugins", "check", "maker", "import_module")
LINES, ALIASES, FLOORS = 250, 10, 8


def name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(file): file for file in FILES}


def home(public):
    """The module that a public name of the root stands for."""
    return subtune_jax._HOMES.get(public, public).partition(":")[0]


def module(path):
    """The longest part of a dotted path that is a module of ours."""
    while path and path not in MODULES:
        path = path.rpartition(".")[0]
    return path


@functools.cache
def imports(path):
    """The modules that a module imports; the root hands names on and counts as none."""
    modules = set()
    for node in ast.walk(ast.parse(MODULES[path].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "subtune_jax":
            modules |= {module(home(alias.name)) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = (node.module or "").removeprefix("subtune_jax.")
            if inside != node.module:
                modules |= {module(f"{inside}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("subtune_jax."):
                    modules.add(module(alias.name.removeprefix("subtune_jax.")))
        elif isinstance(node, ast.Call | ast.Dict):
            modules |= by_name(node)
    return modules - {"", path}


def by_name(node):
    """Folders of plug-ins that a call of the registry, or a table for one, names."""
    if isinstance(node, ast.Dict):
        values = node.values
    else:
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        values = node.args if function in BY_NAME else []
    texts = [v.value for v in values if isinstance(v, ast.Constant)]
    return {text for text in texts if text in USERS and text in MODULES}


def wing(path):
    return path.partition(".")[0]


INSIDE = [path for path in MODULES if wing(path) in WINGS]


def test_the_root_holds_wings_and_nothing_else():
    entries = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__.py", "__main__.py", "py.typed", *WINGS}


@pytest.mark.parametrize("path", INSIDE)
def test_an_import_only_points_down(path):
    above = WINGS[: WINGS.index(wing(path))]
    climbing = sorted(other for other in imports(path) if wing(other) in above)
    assert not climbing


def test_no_module_imports_itself_in_a_circle():
    done, stack = set(), []

    def visit(path):
        assert path not in stack, f"{' -> '.join(stack[stack.index(path) :])} -> {path}"
        if path not in done:
            stack.append(path)
            for other in imports(path):
                visit(other)
            done.add(stack.pop())

    for path in INSIDE:
        visit(path)


def test_the_house_has_eight_floors_at_most():
    below = collections.defaultdict(set)
    for path in INSIDE:
        below[wing(path)] |= {wing(other) for other in imports(path)} - {wing(path)}

    @functools.cache
    def floor(room):
        return 1 + max(map(floor, below[room]), default=0)

    assert max(map(floor, WINGS)) <= FLOORS


def test_no_two_modules_share_a_name():
    own = [p for p in INSIDE if not any(p.startswith(f"{u}.") for u in USERS)]
    last = [p.rpartition(".")[2] for p in own if p not in USERS]
    assert not [n for n, count in collections.Counter(last).items() if count > 1]
    assert not set(last) & set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", WINGS)
def test_no_module_has_the_name_of_a_public_function_of_its_wing(room):
    inside = [path for path in INSIDE if wing(path) == room and path != room]
    if room in USERS:
        return
    names = {path.rpartition(".")[2] for path in inside}
    handed_on = set(re.findall(r'^    "(\w+)",$', MODULES[room].read_text(), re.M))
    assert not names & handed_on


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_holds_one_idea(file):
    lines = len(file.read_text().splitlines())
    assert lines <= LINES


def test_hardly_any_import_of_ours_needs_another_name():
    aliases = []
    for path in MODULES:
        for node in ast.walk(ast.parse(MODULES[path].read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                "subtune_jax"
            ):
                aliases += [(path, a.name, a.asname) for a in node.names if a.asname]
    assert len(aliases) <= ALIASES, aliases


@pytest.mark.parametrize("path", [path for path in WINGS if path not in USERS])
def test_a_wing_says_what_is_inside_in_a_few_lines(path):
    text = ast.get_docstring(ast.parse(MODULES[path].read_text())) or ""
    assert 3 <= len(text.splitlines()) <= 10
