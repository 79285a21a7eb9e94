"""What docstrings, comments and pages name is there: files, commands, config keys."""

import ast
import functools
import io
import json
import re
import shlex
import tokenize
from pathlib import Path

import pytest

from subtune_jax.__main__ import COMMANDS
from subtune_jax.commands import configs
from subtune_jax.core import registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "subtune_jax"
TOPS = ("configs", "results", "docs", "colabs", "subtune_jax", "tests")
WINGS = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
HIDDEN = re.compile(
    r"(^|/)(\.|_build|build|generated|dist|runs|node_modules|.*\.egg-info)"
)
# A path starts in a folder of the repository or in a wing, or is the name of a module.
WORD = r"(?<![\w/.:\\@*-])((?:{})/[\w./*{{}},-]*[\w*}}/]|\w+\.(?:py|md|ipynb))(?![\w/])"
PATH = re.compile(WORD.format("|".join([*TOPS, *WINGS])))
COMMAND = re.compile(r"(?:subtune|python3? -m subtune_jax) ([^`\n|;&]+)")
KEY = re.compile(r"--config\.([\w.]+)=")
OWN = ("my_", "your_", "mine", "DIR")  # how files are called that a reader would have
WRITTEN = ("compare.md",)  # by a command, into its workdir
# Files that CONTRIBUTING shows in full; contributing_test follows what it says of them.
SHOWN = re.findall(
    r"^```python file=(\S+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M
)


def files():
    """Everything that is written for readers."""
    for suffix in ("py", "md", "ipynb", "toml", "cff"):
        for path in sorted(ROOT.rglob(f"*.{suffix}")):
            if not HIDDEN.search(path.relative_to(ROOT).as_posix()):
                yield path


def prose(path):
    """Comments and docstrings of a module, or the whole text of a page."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    if path.suffix != ".py":
        return text
    tree, kinds = ast.parse(text), (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n\n".join([*(ast.get_docstring(node) or "" for node in nodes), *comments])


@functools.cache
def written():
    """Path from the root -> its prose, in which a command is on one line.

    What a source says of other people's code, "its code (OWNER/NAME, `FILE`)", is out.
    """
    texts = {path.relative_to(ROOT).as_posix(): prose(path) for path in files()}
    texts = {file: re.sub(r"code\s\([^)]*\)", "", text) for file, text in texts.items()}
    return {file: re.sub(r"\s*\\+\n\s*", " ", text) for file, text in texts.items()}


@functools.cache
def names():
    """The names of all files of the repository."""
    return {path.name for path in files()}


def is_there(word, file):
    """Is there such a file? Capitals and stars stand for anything."""
    if word.startswith(OWN) or word.split("/")[-1].startswith(OWN):
        return True
    if word in WRITTEN or word.endswith(tuple(SHOWN)):
        return True
    if "/" not in word:
        return word in names()
    pattern = re.sub(r"[A-Z]+(?![a-z])", "*", word).rstrip("/.,")
    pattern = re.sub(r"\{[\w,]*\}", "*", pattern)
    homes = (ROOT, PACKAGE, (ROOT / file).parent, *map(PACKAGE.joinpath, WINGS))
    return any(any(home.glob(pattern)) for home in homes)


def test_every_path_that_is_named_is_there():
    lost = [
        f"{file}: {word}"
        for file, text in written().items()
        for word in PATH.findall(text)
        if not is_there(word, file)
    ]
    assert not lost, "\n".join(lost)


def commands():
    """(file, the words after `subtune`) of every command that is shown in full."""
    for file, text in written().items():
        for shown in COMMAND.findall(text):
            own = any(f"={Path(name).stem}" in shown for name in SHOWN)
            if re.match(r"[a-z]+ .*--config=[\w/.]+\.py", shown) and not own:
                words = shlex.split(shown, comments=True)
                yield pytest.param(file, words, id=f"{file}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("file, words", list(commands()))
def test_a_command_that_is_shown_has_a_config_and_keys_that_are_read(file, words):
    name, spec = words[0], words[1].removeprefix("--config=")
    assert name in COMMANDS
    if spec.startswith(OWN) or not spec.startswith("configs/"):
        return  # the reader's own
    pairs = [re.fullmatch(r"--config\.([\w.]+)=(.*)", word) for word in words[2:]]
    overrides = dict(pair.groups() for pair in pairs if pair)
    real = {key: text for key, text in overrides.items() if not re.search("[$…]", text)}
    configs.read(f"{ROOT}/{spec.rstrip('.,')}", real)


def known_keys():
    """All that follows `--config.`, of every plug-in."""
    least = {"task": "structured", "backbone": "mlp", "method": "full"}
    keys = set(configs.complete({part: {"name": name} for part, name in least.items()}))
    for section, make in configs.SECTIONS.items():
        keys |= {f"{section}.{key}" for key in registry.arguments(make)}
    for part in ("task", "backbone", "method"):
        keys.add(f"{part}.name")
        for name in registry.plugins(f"{part}s"):
            make = registry.maker(f"{part}s", name)
            keys |= {f"{part}.{key}" for key in registry.arguments(make)}
    return keys


def test_every_config_key_that_is_named_is_read():
    known = known_keys()
    lost = [
        f"{file}: --config.{key}"
        for file, text in written().items()
        for key in KEY.findall(text)
        if key not in known and not key.isupper()
    ]
    assert not lost, "\n".join(lost)


def test_every_command_that_is_named_is_one():
    shown = re.compile(
        r"(?:`|^[ \t$]*)(?:python3? -m subtune_jax|subtune) ([a-z]+)\b", re.M
    )
    lost = [
        f"{file}: subtune {name}"
        for file, text in written().items()
        for name in shown.findall(text)
        if name not in COMMANDS
    ]
    assert not lost, "\n".join(lost)
