"""The pages for readers, and the blocks of code in them."""

import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from subtune_jax import __main__
from subtune_jax.commands import configs
from subtune_jax.core import registry

ROOT = Path(__file__).parents[1]
DOCS = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if not {"_build", "generated"} & set(path.parts)
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]


class Block(NamedTuple):
    """A fenced block: what stands behind the fence, and its text."""

    language: str
    note: str
    text: str


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    fence = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = [Block(*match) for match in fence.findall(path.read_text())]
    return [block for block in found if block.language == language]


def commands(path):
    """The words of every `subtune ...` that the page shows in a block of bash."""
    for block in blocks(path, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "subtune" in words:
                yield [
                    word for word in words[words.index("subtune") + 1 :] if word != "&"
                ]


def check(words, capsys):
    """Asserts that a command exists, with its config, its keys and its flags."""
    command, *rest = words
    if command.startswith("-"):
        return
    assert command in __main__.COMMANDS
    overrides = [word for word in rest if word.startswith("--config.")]
    flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
    flags -= {word.partition("=")[0] for word in overrides}
    pairs = [word.removeprefix("--config.").partition("=") for word in overrides]
    for word in rest:
        if word.startswith("--config="):
            changes = {key: value for key, _, value in pairs}
            configs.read(word.removeprefix("--config="), changes)
    known = set(re.findall(r"--[\w-]+", _usage(command, rest, capsys)))
    assert flags <= known
    if command in ("methods", "tasks", "backbones"):
        assert set(rest) - flags <= set(registry.plugins(command))


def _usage(command, rest, capsys):
    main = importlib.import_module(f"subtune_jax.commands.{command}").main
    job = rest[:1] if command == "delta" else []
    try:
        code = main([*job, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    return capsys.readouterr().out.partition("Keys of the config")[0]
