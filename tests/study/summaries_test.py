"""Rows of a comparison: what its table has, and where it comes from."""

import grids
import numpy as np
import pytest


def test_the_table_has_the_values_of_the_results(finished):
    for row in grids.content(finished)["rows"]:
        task, method = row["task"], row["method"]
        factor = grids.best_factor(finished, task, method, grids.SEEDS[:1])
        runs = [
            grids.result(finished, task, method, factor, seed) for seed in grids.SEEDS
        ]
        tests = [one["metrics"]["test"] for one in runs]
        assert row["values"] == tests
        assert row["mean"] == pytest.approx(np.mean(tests))
        assert row["std"] == pytest.approx(np.std(tests, ddof=1))
        validations = [one["metrics"]["validation"] for one in runs]
        assert row["validation"] == pytest.approx(np.mean(validations))
        for key in ("selected", "extras", "head", "fraction"):
            assert row[key] == pytest.approx(runs[0]["trainable"][key])
        costs = [one["cost"] for one in runs]
        for key in ("optimizer_bytes", "delta_bytes"):
            assert row[key] == pytest.approx(np.mean([cost[key] for cost in costs]))
        seconds = [cost["train_seconds"] / 9 for cost in costs]
        assert row["step_seconds"] == pytest.approx(np.mean(seconds))
        assert row["rates"] == [
            {
                "rate": f * grids.RATES[method],
                "validation": grids.result(finished, task, method, f, grids.SEEDS[0])[
                    "metrics"
                ]["validation"],
            }
            for f in sorted(grids.FACTORS)
        ]
        # One input of each of 16 neurons in two layers; the biases of their norms.
        assert row["selected"] == row["extras"] == {"head": 0, "random": 32}[method]


def test_a_table_of_trainings_has_its_own_columns(finished):
    text = (finished / "compare.md").read_text()
    first, second = text.split("### ")[1:]
    assert first.startswith("count / \n") and second.startswith("distance / \n")
    rows = [row for row in grids.content(finished)["rows"] if row["task"] == "count"]
    row = max(rows, key=lambda row: row["mean"])
    lines = first.splitlines()
    assert lines[2] == (
        "| method | test | worst | failed | drift | selected | extras | head "
        "| optimiser kB | step ms | rate |"
    )
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == [
        row["method"],
        f"{row['mean']:.3f} ± {row['std']:.3f}",
        f"{min(row['values']):.3f}",
        f"{row['failed']:.0%}",
        "",
        f"{row['selected']:.0f}",
        f"{row['extras']:.0f}",
        f"{row['head']:.0f}",
        f"{row['optimizer_bytes'] / 1000:.0f}",
        f"{row['step_seconds'] * 1000:,.1f}",
        f"{row['rate']:.3g}",
    ]
