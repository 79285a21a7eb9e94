"""The command `subtune delta`: looks at deltas, checks, applies and combines them."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax import delta
from subtune_jax.core import process, registry, trees
from subtune_jax.delta import algebra, tensor_file

Given = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one of the jobs below; returns the exit code."""
    parse = _parser()
    try:
        given = parse.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    return process.guard(parse.prog, lambda: given.job(given))


def info(given: Given) -> None:
    """Prints what a delta says of itself."""
    found = delta.info(given.delta)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    table = _table("leaf", "changed", "of", "held", "type")
    for name, row in found["leaves"].items():
        counts = f"{row['count']:,}", f"{row['size']:,}"
        table.add_row(name, *counts, row["encoding"], row["dtype"])
    console = _console()
    console.print(table)
    total = f"{found['count']:,} elements of {len(found['leaves'])} leaves changed"
    rows = {
        "total": f"{total}; {found['unchanged']} leaves unchanged",
        "size": f"{process.size(found['bytes'])} ({found['bytes']:,} bytes)",
        "base": found["base_fingerprint"],
        "result": found["result_fingerprint"],
        "meta": json.dumps(found["meta"]),
        "written by": ", ".join(f"{k} {v}" for k, v in found["versions"].items()),
    }
    for name, text in rows.items():
        console.print(f"{name:>10}  {text}", markup=False)


def verify(given: Given) -> None:
    """Checks a delta against its digests, its base and its result."""
    delta.load(given.delta, _base(given.delta, given.base))
    print(f"{given.delta}: intact, the base is the right one, so is the result")


def apply(given: Given) -> Path:
    """Writes the whole tuned tree as one file of flat paths."""
    tuned = delta.load(given.delta, _base(given.delta, given.base))
    notes = {"result_fingerprint": delta.info(given.delta)["result_fingerprint"]}
    return tensor_file.write(given.out, delta.flatten(tuned), notes)


def diff(given: Given) -> None:
    """Prints how two deltas overlap."""
    found = algebra.diff(given.delta, given.other)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    table = _table("leaf", "first", "second", "both", "equal", "conflict")
    for name, row in found["leaves"].items():
        counts = [row[key] for key in ("a", "b", "both", "equal")]
        counts.append(row["both"] - row["equal"])
        table.add_row(name, *(f"{count:,}" for count in counts))
    console = _console()
    console.print(table)
    same = "the same base" if found["same_base"] else "DIFFERENT bases"
    console.print(f"The deltas have {same}.")


def merge(given: Given) -> Path:
    """Writes one delta that does what several do."""
    base = _base(given.delta, given.base)
    paths = [given.delta, *given.others]
    tuned = algebra.merge(paths, base, given.rule)
    found = [delta.info(path) for path in paths]
    meta = {
        "merged": [each["result_fingerprint"] for each in found],
        "rule": given.rule,
    }
    first = found[0]["meta"]
    if isinstance(first, Mapping) and "backbone" in first:
        meta["backbone"] = first["backbone"]
    return delta.save(given.out, base, tuned, meta)


def export(given: Given) -> Path:
    """Writes a delta as one file of positions and values."""
    return algebra.export(given.delta, given.out)


def _base(path: Path, file: Path | None) -> Any:
    """The base: from `file`, or of the backbone that the delta's meta names."""
    if file is not None:
        return trees.nest(tensor_file.read(file))
    meta = delta.info(path)["meta"]
    spec = meta.get("backbone") if isinstance(meta, Mapping) else None
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise ValueError(f"the meta of {path} names no backbone; give --base=FILE")
    return registry.load("backbones", spec).load()


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="subtune delta", description=__doc__, allow_abbrev=False
    )
    jobs = parse.add_subparsers(required=True, metavar="JOB")

    def job(work: Callable[[Given], Path | None]) -> argparse.ArgumentParser:
        text = (work.__doc__ or "").splitlines()[0]
        made = jobs.add_parser(work.__name__, help=text, description=text)
        made.set_defaults(job=work)
        made.add_argument("delta", type=Path, help="a delta folder")
        return made

    plain, check, whole, pair, several, flat = map(
        job, (info, verify, apply, diff, merge, export)
    )
    pair.add_argument("other", type=Path, help="another")
    several.add_argument("others", type=Path, nargs="+", help="others")
    several.add_argument("--rule", choices=algebra.RULES, default="error")
    several.add_argument("--out", type=Path, required=True, help="the new folder")
    for made in (plain, pair):
        made.add_argument("--json", action="store_true", help="JSON instead of a table")
    for made in (check, whole, several):
        text = ".safetensors or .npz of flat paths; default: the delta's backbone"
        made.add_argument("--base", type=Path, metavar="FILE", help=text)
    for made in (whole, flat):
        made.add_argument("--out", type=Path, required=True, help="the new file")
    return parse


def _table(*columns: str) -> Any:
    from rich.table import Table  # of the extra [train]: only tables need it

    return Table(*columns, box=None)


def _console() -> Any:
    from rich.console import Console

    # Off a terminal rich would wrap at 80 columns and cut names.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)
