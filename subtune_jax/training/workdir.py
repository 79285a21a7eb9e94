"""The folder of a run: it belongs to one config, and files in it are never torn."""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from subtune_jax.core import registry
from subtune_jax.training.settings import PLUGINS, renamed

CONFIG = "config.json"


def write_json(path: Path, content: Any) -> Path:
    """Writes `content` at once or not at all; process 0 alone writes."""
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(partial, path)
    return path


def check(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Refuses a workdir of another config; writes nothing.

    Raises:
      ValueError: naming the first key that differs, or that `workdir` is a file.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir {workdir} is a file; it must be a folder or new")
    path = workdir / CONFIG
    if not path.exists():
        return
    old = renamed(json.loads(path.read_text()))
    for part, package in PLUGINS.items():  # with arguments that have come since
        if part in old and "name" in old[part]:
            make = registry.maker(package, old[part]["name"])
            old[part] = registry.arguments(make) | old[part]
    there = _flat(_plain(old))
    here = _flat(_plain(settings))
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            raise ValueError(
                f"workdir {workdir} is of another config: {key} is {there.get(key)!r} "
                f"there and {here.get(key)!r} here; choose another workdir"
            )


def claim(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Marks `workdir` as belonging to `settings`."""
    write_json(workdir / CONFIG, _plain(settings))


@contextlib.contextmanager
def reserved(workdir: Path) -> Iterator[bool]:
    """Whether no other process has reserved `workdir`; this one has it until the end.

    The reservation is a lock on a file beside the folder. The system lets go of it
    when a process ends, however it ends. It is always given where the system has no
    such locks, and to several processes of one JAX program.
    """
    if importlib.util.find_spec("fcntl") is None or jax.process_count() > 1:
        yield True
        return
    import fcntl

    workdir.parent.mkdir(parents=True, exist_ok=True)
    with workdir.with_name(f".{workdir.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        here = f"{prefix}{key}"
        flat |= _flat(value, f"{here}.") if isinstance(value, dict) else {here: value}
    return flat
