"""The tables of the documentation, from the files of studies in `results/`.

    python -m subtune_jax.study.study_tables results/text_movie.json results/gps.json

Prints Markdown: of comparisons all trainings in one table, profiles, and searches; of
seeds, each run; of benchmarks, checks and ratios. With `--pictures=DIR` every picture
is drawn again into a folder, those of searches too.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax.core import trees
from subtune_jax.report import tables
from subtune_jax.study import study_file, study_pictures
from subtune_jax.study.summaries import Row

Study = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables of the files; returns the exit code."""
    parse = argparse.ArgumentParser(prog="study_tables", allow_abbrev=False)
    parse.add_argument("files", nargs="+", type=Path, metavar="results/STUDY.json")
    parse.add_argument("--pictures", type=Path, metavar="DIR", help="draw them there")
    given = parse.parse_args(argv)
    try:
        studies = [study_file.read(path) for path in given.files]
    except (OSError, ValueError) as error:
        print(f"study_tables: {error}", file=sys.stderr)
        return 2
    print(markdown(studies))
    for study in studies if given.pictures else ():
        study_pictures.save(study, given.pictures, searched=True)
    return 0


def markdown(studies: Sequence[Study]) -> str:
    """All tables of some studies."""
    summed = [
        study_file.summary(study) for study in studies if study_file.compares(study)
    ]
    rows = [row for summary in summed for row in summary["rows"]]
    trainings = [row for row in rows if "rate" in row]
    parts = [tables.trainings(trainings)] if trainings else []
    for study, summary in zip(
        filter(study_file.compares, studies), summed, strict=True
    ):
        parts.append(profile_table(study))
        parts.append(tables.correlations(summary["profiles"]))
        parts.append(search_table(summary["rows"]))
    parts += [seed_table(study) for study in studies if not study_file.compares(study)]
    parts += [benchmark_table(study) for study in studies]
    return "\n".join(part for part in parts if part)


def profile_table(study: Study) -> str:
    """The head alone, each profile's best block, all blocks, the last; what it cost."""
    rows = []
    for folder, run in study["runs"].items():
        if "best" not in run:
            continue
        of = {tuple(row["blocks"]): row["mean"] for row in run["rows"]}
        single = {blocks[0]: mean for blocks, mean in of.items() if len(blocks) == 1}
        numbered = [block for block in single if block[-1].isdigit()] or [*single]
        best, last = max(single, key=lambda block: single[block]), numbered[-1]
        cost = run["cost"]
        rows.append(
            [
                folder.split("/")[0],
                tables.short(of[()]),
                f"**{tables.short(single[best])}** ({best})",
                tables.short(of[max(of, key=len)]),
                f"{tables.short(single[last])} ({last})",
                f"{cost['trainings']}, {cost['train_steps']:,}, {_minutes(cost)}",
            ]
        )
    columns = ("task, network", "head alone", "best block alone", "all blocks")
    columns += ("last block", "trainings, steps, minutes")
    return tables.table(columns, rows) + "\n" if rows else ""


def search_table(rows: Sequence[Row]) -> str:
    """What each seed's search selected, the final trainings, and what it cost."""
    places: dict[str, dict[str, Row]] = {}
    for row in (row for row in rows if "rate" not in row):
        place = f"{row['task']} / {row['network']}"
        places.setdefault(place, {})[row["method"]] = row
    names = list(dict.fromkeys(name for own in places.values() for name in own))
    lines = []
    for place, own in places.items():
        selected = own["selected"]
        sets = "; ".join(", ".join(blocks) or "none" for blocks in selected["blocks"])
        cells = [_mean(own[name]) if name in own else "" for name in names]
        cost = selected["search"]
        counts = f"{cost['trainings']:.0f}, {cost['train_steps']:,.0f}"
        costs = f"{counts}, {cost['flops'] / 1e12:.1f}, {_minutes(cost)}"
        lines.append([place, sets, *cells, costs])
    columns = ["task / network", "selected by each seed", *(f"`{n}`" for n in names)]
    columns.append("search: trainings, steps, Tflop, minutes")
    return tables.table(columns, lines) + "\n" if lines else ""


def seed_table(study: Study) -> str:
    """Each run: the linear probe, the metric, the delta, and what stayed as it was."""
    rows = []
    for run in study.get("runs", {}).values():
        probe = run.get("linear_probe", {}).get("test")
        metric, size = run["metrics"]["test"], run["cost"]["delta_bytes"]
        words = ["" if probe is None else tables.short(probe), tables.short(metric)]
        still = str(run["frozen_unchanged"]).lower()
        rows.append([str(run["seed"]), *words, f"{size / 1e3:,.0f} kB", still])
    columns = ("seed", "linear probe, test", "fine-tuned, test", "delta on disk")
    return tables.table((*columns, "`frozen_unchanged`"), rows) + "\n" if rows else ""


def benchmark_table(study: Study) -> str:
    """The checks of every benchmark with their limits, then its ratios: medians."""
    rows = []
    for name, result in study.get("benchmarks", {}).items():
        for row in result.get("checks", ()):
            numbers = (f"{row[key]:.3g}" for key in ("value", "limit"))
            rows.append([f"`{name}`", row["what"], *numbers])
        for path, value in trees.flatten(result.get("ratios", {})).items():
            if value is not None and not path.endswith(("/min", "/max")):
                what = path.removesuffix("/median")
                rows.append([f"`{name}`", what, f"{value:.3g}", ""])
    columns = ("benchmark", "what", "measured", "at most")
    return tables.table(columns, rows) + "\n" if rows else ""


def _mean(row: Row) -> str:
    return f"{tables.short(row['mean'])} ± {tables.short(row['std'])}"


def _minutes(cost: Mapping[str, float]) -> str:
    return f"{cost['seconds'] / 60:.1f}"


if __name__ == "__main__":
    sys.exit(main())
