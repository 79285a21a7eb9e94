"""The grid of a comparison: its best rate, and what it refuses."""

import grids
import numpy as np
import pytest

from subtune_jax.study import grid


def test_the_best_rate_is_the_smallest_with_the_largest_mean():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, seeds = rng.integers(1, 5, 2)
        values = {
            float(rate): list(rng.integers(0, 3, seeds) / 4)
            for rate in rng.permutation([0.1, 0.3, 1.0, 3.0])[:count]
        }
        sums = {rate: sum(found) for rate, found in values.items()}
        least = min(rate for rate in sums if sums[rate] == max(sums.values()))
        assert grid.best(values) == least


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("methods = {}", "rates=(3.0, 0.001, 0.3) without grid.methods"),
        ("methods.a = dict(method=dict(name='biass'))", "did you mean 'bias'"),
        ("methods.a = dict(methd={})", "no config key 'methd'"),
        ("rates = (1.0, 0.0)", "grid.rates=(1.0, 0.0); they must be distinct"),
        ("rates = (1.0, 1.0000001)", "they must be distinct positive factors"),
        ("rates = (1.0, 'two')", "they must be distinct positive factors"),
        ("rate_seeds = 3", "grid.rate_seeds=3; it must be in [1, 2]"),
        ("rate_seeds = 0", "grid.rate_seeds=0; it must be in [1, 2]"),
        ("methods = {}; config.grid.rates = ()", "grid has no methods"),
        ("seeds = ()", "grid.seeds=(); at least one is needed"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    grid_config, tmp_path, capsys, line, message
):
    folder = tmp_path / "new"
    with grids.counted() as prepare:
        assert (
            grids.run(grids.changed(grid_config, tmp_path / "bad.py", line), folder)
            == 2
        )
    assert prepare.call_count == 0
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("rates", [0.5, "0.5", {"a": 1.0}])
def test_rates_that_are_no_sequence_are_refused(rates):
    with pytest.raises(ValueError, match="they must be distinct positive factors"):
        grid.make(methods={"head": {}}, rates=rates)
