"""Files of texts: CSV, TSV and JSON lines to examples and labels, safely.

Files are UTF-8, with or without a byte order mark. The first line of a CSV or TSV file
names the columns. Fields are quoted as RFC 4180 has it, but never where the delimiter
is a tab: such files hold quotation marks that stand for themselves (GLUE, SICK).

An empty text is a text, and fine. A blank row is a mistake, and so is an empty label.
"""

import codecs
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core.registry import near

DELIMITERS = {".csv": ",", ".tab": "\t", ".tsv": "\t", ".txt": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
MOST = float(np.finfo(np.float32).max)
SUFFIXES = (*DELIMITERS, *JSON_LINES)

Row = tuple[int, Mapping[str, Any]]  # the line where it starts, and its fields


class Table(NamedTuple):
    """The examples of a file.

    Attributes:
      examples: `{"text": str}`, of pairs also `"pair"`.
      labels: of each, what stands in the file: strings, or of a regression floats.
      places: of each, `FILE:LINE`.
    """

    examples: list[dict[str, Any]]
    labels: list[Any]
    places: list[str]


def read(
    file: Path,
    text: str = "text",
    pair: str | None = None,
    label: str = "label",
    *,
    regression: bool = False,
    delimiter: str | None = None,
) -> Table:
    """All examples of `file`.

    Args:
      file: its name ends in one of `SUFFIXES`, or there is a `delimiter`.
      text: the column with the text.
      pair: the column with the second text of a pair; None for single texts.
      label: the column with the label. In JSON lines a string or an integer, which
        becomes a string; of a regression a number.
      regression: whether labels are numbers.
      delimiter: one character; None for that of the suffix.

    Raises:
      ValueError: the file cannot be read, or is not what it should be; the message
        names it, and the line.
    """
    columns = {"text": text, "label": label} | ({} if pair is None else {"pair": pair})
    table = Table([], [], [])
    for line, fields in _rows(file, tuple(columns.values()), delimiter):
        place = f"{file}:{line}"
        example = {key: fields[column] for key, column in columns.items()}
        value = example.pop("label")
        for key, part in example.items():
            _check_text(part, f"{place}: {columns[key]!r}")
        name = f"{place}: label {value!r}"
        table.examples.append(example)
        table.labels.append(_number(value, name) if regression else _name(value, name))
        table.places.append(place)
    if not table.labels:
        raise ValueError(f"{file} has no rows")
    return table


def _rows(file: Path, columns: Sequence[str], delimiter: str | None) -> list[Row]:
    suffix = file.suffix.lower()
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise ValueError(f"delimiter={delimiter!r}; it is one character")
    if suffix in JSON_LINES:
        if delimiter is not None:
            raise ValueError(f"{file}: JSON lines have no delimiter")
        return _json_lines(_content(file), file, columns)
    if delimiter is None and suffix not in DELIMITERS:
        what = f"{file}: what is its format? Names end in {', '.join(SUFFIXES)}"
        raise ValueError(f"{what}, or give a delimiter")
    return _table(_content(file), file, columns, delimiter or DELIMITERS[suffix])


def _content(file: Path) -> str:
    try:
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"{file}:{line}: byte 0x{data[error.start]:02x} is not UTF-8"
        raise ValueError(f"{what}; save the file as UTF-8") from error
    if not content.strip():
        raise ValueError(f"{file} is empty")
    return content


def _table(
    content: str, file: Path, columns: Sequence[str], delimiter: str
) -> list[Row]:
    (_, header), *rows = _records(content, file, delimiter)
    _check_header(header, columns, file)
    for line, fields in rows:
        if len(fields) != len(header):
            what = f"{file}:{line}: {len(fields)} fields"
            raise ValueError(f"{what}; the first line names {len(header)}")
    return [(line, dict(zip(header, fields, strict=True))) for line, fields in rows]


def _records(content: str, file: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """The fields of each row, and the line where it starts."""
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    lines = io.StringIO(content, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    records = []
    start = 1  # a quoted field may go over several lines
    limit = csv.field_size_limit(len(content) + 1)  # of the whole process
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                raise ValueError(f"{file}:{start}: the row is blank")
            records.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}:{start}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return records


def _check_header(header: list[str], columns: Sequence[str], file: Path) -> None:
    for column in columns:
        if column not in header:
            known = near(column, header)
            raise ValueError(f"{file}:1: no column named {column!r}; {known}")
        if header.count(column) > 1:
            raise ValueError(f"{file}:1: several columns are named {column!r}")


def _json_lines(content: str, file: Path, columns: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for line, row in enumerate(content.removesuffix("\n").split("\n"), start=1):
        place = f"{file}:{line}"
        if not row.strip():
            raise ValueError(f"{place}: the row is blank")
        try:
            fields = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: this is no JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{place}: a {type(fields).__name__}; rows are objects")
        for column in columns:
            if column not in fields:
                known = near(column, fields)
                raise ValueError(f"{place}: no field named {column!r}; {known}")
        rows.append((line, fields))
    return rows


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} is {json.dumps(text)[:40]}; texts are strings")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise ValueError(f"{name} is no Unicode text: {error.reason}") from error


def _name(label: Any, name: str) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"{name} is neither a string nor an integer")
    if not str(label).strip():
        raise ValueError(f"{name} is empty")
    return str(label)


def _number(label: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(label, bool) else float(label)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MOST:
        raise ValueError(f"{name} is no finite number of 32 bits")
    return number
