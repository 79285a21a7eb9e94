"""The studies on record: their tables, and what the documentation quotes of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from subtune_jax.report import tables
from subtune_jax.study import study_file, study_pictures, study_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
COMPARISONS = ("gps", "gps_text", "subtuning", "text_movie", "text_r8")
STUDIES = [*COMPARISONS, "quickstart", *(p.stem for p in RESULTS.glob("bench/*.json"))]
LIMIT, EACH = 3_000_000, 300_000  # bytes of all results, of one study's JSON


def read(name):
    path = RESULTS / f"{name}.json"
    return study_file.read(path if path.exists() else RESULTS / f"bench/{name}.json")


def test_results_are_small_and_say_where_they_come_from():
    files = [file for file in RESULTS.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".png"}
    assert sum(file.stat().st_size for file in files) < LIMIT
    for file in files:
        if file.suffix == ".json":
            assert file.stat().st_size < EACH, file
            content = json.loads(file.read_text())
            assert content["study"] == file.stem
            assert content["command"] and set(content["measured"]) == {"first", "last"}


@pytest.mark.parametrize("name", STUDIES)
def test_each_study_has_a_table_of_equal_columns(name):
    parts = study_tables.markdown([read(name)]).strip().split("\n\n")
    lines = [line for part in parts for line in part.splitlines() if line[0] == "|"]
    assert len(lines) > 2
    for part in parts:
        assert len({line.count("|") for line in part.splitlines()}) == 1


def test_every_deviation_that_a_table_of_the_docs_has_is_in_a_study():
    figure = re.compile(r"[+-]?\d?\.\d{3} ± \d?\.\d{3}")
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    lines = [line for page in pages for line in page.read_text().splitlines()]
    quoted = [line.replace("**", "") for line in lines if line.startswith("|")]
    quoted = {each for line in quoted for each in figure.findall(line)}
    studies = [read(name) for name in COMPARISONS]
    measured = set(figure.findall(study_tables.markdown(studies)))
    assert len(quoted) > 20
    assert quoted <= measured


def test_trainings_of_several_files_share_one_table():
    text = study_tables.markdown([read("text_movie"), read("text_r8")])
    heading, _, *lines = text.strip().splitlines()
    places = ["movie1000", "movie500", "r8"]
    assert heading.split(" | ")[:5] == ["| method", "trained", *places]
    assert len(lines) == 12
    assert lines[0].startswith("| `random` | 106,176 | .778 ± .011, .769 |")


def test_a_difference_is_that_of_the_same_seeds():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.2, 0.8, (2, 5))
    rows = [
        {
            "task": "t", "network": "", "method": method, "values": list(own),
            "mean": own.mean(), "std": own.std(ddof=1), "trainable": 10,
            "optimizer_bytes": 80, "rate": 0.1,
        }
        for method, own in zip(("full", "other"), values, strict=True)
    ]  # fmt: skip
    difference = values[1] - values[0]
    error = difference.std(ddof=1) / np.sqrt(5)
    words = f"{difference.mean():+.3f} ± {error:.3f}".replace("0.", ".")
    (line,) = [x for x in tables.trainings(rows).splitlines() if "`other`" in x]
    assert f"| {words} |" in line


def test_profiles_and_searches_are_told_with_their_cost():
    text = study_tables.markdown([read("subtuning")])
    assert "| elpv_vit_s14 | .769 | **.814** (block02) | .768 | .756 (block12) " in text
    assert "| elpv / vit_s14 | block02; block10; block02 | .789 ± .015 " in text
    assert "87, 2,016, 31.1, 6.5 |" in text


def test_pictures_are_drawn_from_the_files_alone(tmp_path):
    study = read("subtuning")
    study["runs"] = {
        folder: run for folder, run in study["runs"].items() if "elpv_vit" in folder
    }
    paths = study_pictures.save(study, tmp_path, searched=True)
    names = [f"elpv_vit_s14_{name}" for name in ("profile", "search0")]
    assert {f"subtuning_{name}.png" for name in names} < {path.name for path in paths}
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 60_000


def test_a_file_that_is_missing_is_one_line(capsys):
    assert study_tables.main(["results/no_such_study.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
