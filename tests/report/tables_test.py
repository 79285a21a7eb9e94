"""Tables of comparisons put every figure in its own column."""

from subtune_jax.report import tables


def row(task, method, mean, kilobytes, rate):
    """Of a comparison, as `summaries.table` gives it."""
    figures = {"mean": mean, "std": 0.01, "values": [mean, mean], "trainable": 5}
    place = {"task": task, "network": "", "method": method}
    return {**place, **figures, "optimizer_bytes": kilobytes * 1e3, "rate": rate}


def test_figures_of_several_places_are_in_the_order_of_the_columns():
    rows = [  # another order of places for each method, as where rows are best first
        row("a", "full", 0.9, 1, 1e-3),
        row("b", "full", 0.8, 2, 2e-3),
        row("b", "gps", 0.7, 4, 4e-3),
        row("a", "gps", 0.6, 3, 3e-3),
    ]
    *_, full, gps = tables.trainings(rows).splitlines()
    assert full.endswith("| 1; 2 | 0.001; 0.002 |")
    assert gps.endswith("| 3; 4 | 0.003; 0.004 |")
    assert ".600 ± .010, .600 | .700 ± .010, .700 |" in gps
