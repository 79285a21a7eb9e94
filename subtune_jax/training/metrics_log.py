"""The log of a run: `metrics.jsonl` and TensorBoard events, one record a line.

A record is a flat dict with an integer `step`, mostly a `split`, and numbers. A run
that was killed and resumed at step `s` has each record once: what is later than `s`
is dropped before anything is written again.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

NAME = "metrics.jsonl"
EVENTS = "tensorboard"


@contextlib.contextmanager
def writing(
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
    resume(workdir, after)
    with (
        (workdir / NAME).open("a") as lines,
        SummaryWriter(
            str(workdir / EVENTS), purge_step=after + 1, flush_secs=10
        ) as events,
    ):

        def write(record: Mapping[str, Any]) -> None:
            clean = {key: _plain(value) for key, value in record.items()}
            step = clean["step"]
            lines.write(json.dumps(clean) + "\n")
            lines.flush()
            split = f"{clean['split']}/" if "split" in clean else ""
            for key, value in clean.items():
                if isinstance(value, int | float) and key != "step":
                    events.add_scalar(split + key, value, step)

        yield write


def read(workdir: str | Path) -> list[dict[str, Any]]:
    """All records, in order; none where there is no log.

    A last line without its end, torn by a kill, is no record.

    Raises:
      ValueError: another line is no record; its number is named.
    """
    path = Path(workdir) / NAME
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


def resume(workdir: str | Path, step: int) -> list[dict[str, Any]]:
    """The records up to and with `step`; the others leave the file, atomically."""
    path = Path(workdir) / NAME
    kept = [record for record in read(workdir) if record["step"] <= step]
    if path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(partial, path)
    return kept


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else None
