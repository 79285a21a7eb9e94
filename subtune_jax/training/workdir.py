"""The folder of a run: it belongs to one config, and its files are never torn.

`metrics.jsonl` and TensorBoard events are its log, one record a line: a flat dict with
an integer `step`, mostly a `split`, and numbers. A run that was killed and resumed at
step `s` has each record once: what is later than `s` is dropped before anything is
written again.
"""

import contextlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

from subtune_jax.core import registry
from subtune_jax.training.settings import PLUGINS, renamed

CONFIG = "config.json"


def write_json(path: Path, content: Any) -> Path:
    """Writes `content` at once or not at all; process 0 alone writes.

    Numbers that are not finite, which JSON does not have, are written as null.
    """
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        strict = _strict(json.loads(json.dumps(content)))
        partial.write_text(json.dumps(strict, indent=2, allow_nan=False) + "\n")
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
        name = settings[part]["name"]
        if old.get(part, {}).get("name") == name:
            make = registry.maker(package, name)
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


LOG = "metrics.jsonl"
EVENTS = "tensorboard"


@contextlib.contextmanager
def logging(
    workdir: str | Path, after: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that appends a record, in a `with` block; process 0 alone writes.

    A line is in the file when the function returns, so a checkpoint saved afterwards
    never knows more than the log. Numbers that are not finite are written as null.

    Args:
      workdir: a folder; made when it is not there.
      after: the step resumed from; records of later steps are dropped first. -1 for
        a run that starts.

    Raises:
      ValueError: a line of the log so far is damaged, other than the last.
    """
    if jax.process_index() != 0:
        yield lambda record: None
        return
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    resume_log(workdir, after)
    with (
        (workdir / LOG).open("a") as lines,
        SummaryWriter(
            str(workdir / EVENTS), purge_step=after + 1, flush_secs=10
        ) as events,
    ):

        def write(record: Mapping[str, Any]) -> None:
            clean = {key: _number(value) for key, value in record.items()}
            step = clean["step"]
            lines.write(json.dumps(clean) + "\n")
            lines.flush()
            split = f"{clean['split']}/" if "split" in clean else ""
            for key, value in clean.items():
                if isinstance(value, int | float) and key != "step":
                    events.add_scalar(split + key, value, step)

        yield write


def read_log(workdir: str | Path) -> list[dict[str, Any]]:
    """All records, in order; none where there is no log.

    A last line without its end, torn by a kill, is no record.

    Raises:
      ValueError: another line is no record; its number is named.
    """
    path = Path(workdir) / LOG
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
            records[-1]["step"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} line {number} is no record: {line!r}") from error
    return records


def resume_log(workdir: str | Path, step: int) -> list[dict[str, Any]]:
    """The records up to and with `step`; the others leave the file, atomically."""
    path = Path(workdir) / LOG
    kept = [record for record in read_log(workdir) if record["step"] <= step]
    if path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(partial, path)
    return kept


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _strict(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_strict(value) for value in content]
    return _number(content)


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else None
