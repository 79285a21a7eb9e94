"""Config keys: the name of each, its type, its default and what it means.

    for key in keys.of_plugin("methods", "gps"):
        print(key.name, key.kind, key.default, key.meaning)

Nothing is written twice: types and defaults are those of the signature of the function
that takes the keys, meanings stand in the `Args:` of its docstring. `--help`, `subtune
methods NAME` and the page of all keys in `docs/` are made here.
"""

import functools
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from subtune_jax.commands import configs
from subtune_jax.core import registry
from subtune_jax.training import settings

RUN = ("optimizer", "augment")
SEARCH = (*RUN, "trials", "greedy", "baselines")
SECTIONS = {  # command -> the sections that it reads; all read the plug-ins' too
    "train": RUN,
    "seeds": RUN,
    "evaluate": RUN,
    "bench": RUN,
    "profile": (*RUN, "trials", "candidates"),
    "search": SEARCH,
    "compare": (*SEARCH, "candidates", "grid"),
}


class Key(NamedTuple):
    """One key of a config.

    Attributes:
      name: with its section: `optimizer.learning_rate`.
      kind: its type, as the signature has it.
      default: as Python writes it; empty where the key must be given.
      meaning: what it does, its unit and its range; empty where nobody wrote it.
    """

    name: str
    kind: str
    default: str
    meaning: str


def top() -> list[Key]:
    """The keys that belong to no section."""
    return _keys("", settings.top)


def of_section(section: str) -> list[Key]:
    """The keys of a section that is no plug-in, such as `optimizer`."""
    return _keys(f"{section}.", configs.SECTIONS[section])


def of_plugin(package: str, name: str) -> list[Key]:
    """The keys of the plug-in `name` of `methods`, `tasks` or `backbones`.

    Raises:
      ValueError: there is no plug-in of that name.
    """
    section = next(part for part, home in settings.PLUGINS.items() if home == package)
    return _keys(f"{section}.", registry.maker(package, name))


def of_command(command: str) -> list[Key]:
    """All keys that `subtune COMMAND` reads, but those of the plug-ins."""
    sections = [key for part in SECTIONS[command] for key in of_section(part)]
    return [*top(), *sections]


def listing(keys: Iterable[Key]) -> str:
    """Lines for a terminal: `name: type = default`, the meaning below it."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = []
    for key in keys:
        default = f" = {key.default}" if key.default else ", must be given"
        lines.append(f"  {key.name}: {key.kind}{default}")
        lines += textwrap.wrap(
            key.meaning, width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def help_text(command: str) -> str:
    """What `subtune COMMAND --help` says of configs."""
    plugins = "\n".join(
        f"  {part}.name, and the keys of what it names: subtune {home} [NAME]"
        for part, home in settings.PLUGINS.items()
    )
    return (
        "Keys of the config, each set by --config.KEY=VALUE:\n"
        f"{plugins}\n{listing(of_command(command))}"
    )


def _keys(prefix: str, make: Callable[..., Any]) -> list[Key]:
    meanings = _meanings(make)
    keys = []
    for name, parameter in inspect.signature(make).parameters.items():
        missing = parameter.default is inspect.Parameter.empty
        default = "" if missing else repr(parameter.default)
        meaning = meanings.get(name, "")
        keys.append(Key(f"{prefix}{name}", _kind(parameter), default, meaning))
    return keys


def _kind(parameter: inspect.Parameter) -> str:
    text = inspect.formatannotation(parameter.annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)  # Sequence, not collections.abc's


def _meanings(make: Callable[..., Any]) -> dict[str, str]:
    """Argument -> its text in the `Args:` of a docstring in Google's form."""
    if isinstance(make, functools.partial):
        make = make.func
    text = inspect.getdoc(make) or ""
    _, _, section = text.partition("\nArgs:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"  (\w+): (.*)", line)
        if entry:
            name, entries[entry[1]] = entry[1], entry[2]
        elif name:
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries
