"""A journal: finished trials on disk, so that a killed search repeats none of them.

One JSON object a line, flushed to disk before its trial counts as finished. A last
line without its end was torn by a kill, and is dropped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

NAME = "journal.jsonl"


class Journal(NamedTuple):
    """Records by key, in memory and in a file.

    Attributes:
      path: of the file.
      records: key -> record.
    """

    path: Path
    records: dict[str, dict[str, Any]]


def read(folder: Path) -> Journal:
    """The journal in `folder`; empty where there is none. Writes nothing.

    Raises:
      ValueError: a line other than the last is damaged; its number is named.
    """
    path, records = folder / NAME, {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records[record.pop("key")] = record
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} line {number} is no record: {line!r}") from error
    return Journal(path, records)


def write(journal: Journal, key: str, record: Mapping[str, Any]) -> None:
    """Adds a record; when this returns, it is on disk. Process 0 alone writes."""
    path = journal.path
    if jax.process_index() != 0:
        journal.records[key] = dict(record)
        return
    if not journal.records:
        path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.read_bytes() if path.exists() else b""
    with path.open("r+b" if whole else "wb") as file:
        file.seek(whole.rfind(b"\n") + 1)  # over a torn last line
        file.write(json.dumps({"key": key, **record}).encode() + b"\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    journal.records[key] = dict(record)
