"""What is installed: a light import, extras that suffice, a wheel that runs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

import subtune_jax as st
from subtune_jax import __main__ as program
from subtune_jax.core import process

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRA = sorted({name for names in process.MODULES.values() for name in names})
HOMES = {"PIL": "pillow", "orbax": "orbax-checkpoint"}
SHORT = {  # of quickstart
    "train_steps": 2,
    "eval_steps": 0,
    "save_steps": 0,
    "train_examples": 32,
    "validation_examples": 32,
    "optimizer.probe_steps": 2,
    "optimizer.warmup_steps": 1,
}


def python(code, *arguments, executable=sys.executable, cwd=None):
    return subprocess.run(
        [executable, *(("-c", code) if code else ()), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def without_extras(code, *arguments):
    """Runs `code` where importing what an extra installs fails."""
    block = f"import sys; sys.modules.update(dict.fromkeys({EXTRA}))\n"
    return python(block + code, *arguments)


def command_without_extras(*arguments):
    code = "from subtune_jax import __main__ as program; sys.exit(program.main())"
    return without_extras(code, *arguments)


def dists(requirements):
    """The normal names of distributions, extras and versions left out."""
    names = (re.match(r"[\w.-]+", text)[0] for text in requirements)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def test_importing_the_package_imports_no_other():
    code = "import sys; before = set(sys.modules); import subtune_jax"
    code += "\nprint(*{name.split('.')[0] for name in set(sys.modules) - before})"
    done = python(code, "-I")
    names = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert names == {"subtune_jax"}, done.stderr


def test_every_public_name_but_run_needs_no_extra():
    names = [name for name in st.__all__ if name != "run"]
    done = without_extras(f"import subtune_jax as st\nfor n in {names}: getattr(st, n)")
    assert done.returncode == 0, done.stderr


def test_run_without_its_extra_says_what_to_install():
    done = without_extras("import subtune_jax as st\nst.run")
    last = done.stderr.splitlines()[-1]
    assert re.search(r"st\.run needs \w+; pip install 'subtune-jax\[train\]'", last)


@pytest.mark.parametrize("name", sorted(set(program.COMMANDS) - set(program.LIGHT)))
def test_a_command_without_its_extra_says_so_in_one_line(name):
    done = command_without_extras(name, "--help")
    needed = ", ".join(process.MODULES["train"])
    line = f"subtune {name} needs {needed}; pip install 'subtune-jax[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_delta_info_and_fetch_need_no_extra(tmp_path):
    base = {"w": jnp.zeros(3)}
    st.delta.save(tmp_path / "delta", base, {"w": jnp.ones(3)})
    for arguments in (
        ("delta", "info", tmp_path / "delta", "--json"),
        ("fetch", "--list"),
    ):
        done = command_without_extras(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_a_file_that_needs_an_extra_is_one_line(tmp_path):
    base = {"w": jnp.zeros(3)}
    st.delta.save(tmp_path / "delta", base, {"w": jnp.ones(3)})
    out = f"--out={tmp_path / 'flat.safetensors'}"
    done = command_without_extras("delta", "export", tmp_path / "delta", out)
    line = "subtune delta needs safetensors; pip install 'subtune-jax[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_the_package_imports_what_it_asks_for():
    """No module of another distribution than those of pyproject.toml."""
    asked = dists(PROJECT["dependencies"])
    for extra in process.MODULES:
        asked |= dists(PROJECT["optional-dependencies"][extra])
    # What these bring is promised by them: scipy, jaxlib by jax; protobuf by onnx.
    brought = {"scipy", "jaxlib", "google", "subtune_jax"}
    for file in (ROOT / "subtune_jax").rglob("*.py"):
        names = imported(file) - brought - set(sys.stdlib_module_names)
        assert dists(HOMES.get(name, name) for name in names) <= asked, file


def imported(file):
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.split(".")[0] for each in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("extra", process.MODULES)
def test_an_extra_is_named_as_pyproject_lists_it(extra):
    names = dists(HOMES.get(name, name) for name in process.MODULES[extra])
    assert names == dists(PROJECT["optional-dependencies"][extra])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves folders beside its source."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "subtune_jax", source / "subtune_jax", ignore=no_caches)
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source)
    done = python("", *build)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_runs_quickstart(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("XLA_FLAGS")  # of the tests: eight devices
    assert python("", "-m", "venv", tmp_path / "venv").returncode == 0
    inside = tmp_path / "venv" / "bin" / "python"

    def run(code, *arguments):
        return python(code, *arguments, executable=inside, cwd=tmp_path)

    def install(what):
        done = run("", "-m", "pip", "install", "--quiet", what)
        assert done.returncode == 0, done.stderr

    install(str(wheel))
    names = [name for name in st.__all__ if name != "run"]
    done = run(f"import subtune_jax as st\nfor n in {names}: getattr(st, n)")
    assert done.returncode == 0, done.stderr
    typed = "import subtune_jax, pathlib; p = pathlib.Path(subtune_jax.__file__)"
    done = run(f"{typed}; print(p.with_name('py.typed').exists(), p)")
    assert done.stdout.startswith(f"True {tmp_path}"), done.stdout
    train = (
        *("-m", "subtune_jax", "train", "--workdir=work"),
        f"--config={ROOT / 'configs' / 'quickstart.py'}",
        *(f"--config.{key}={value}" for key, value in SHORT.items()),
    )
    done = run("", *train)
    assert done.returncode == 2 and "subtune-jax[train]" in done.stderr

    install(f"{wheel}[demo]")
    done = run("", *train)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / done.stdout.splitlines()[-1]).read_text())
    assert result["frozen_unchanged"] is True
    assert os.path.exists(tmp_path / "work" / "delta")
