"""What several files of tests read: a small comparison, run once, and some texts."""

import csv

import grids
import numpy as np
import pytest


@pytest.fixture(scope="session")
def grid_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "rates.py"
    path.write_text(grids.CONFIG)
    return path


@pytest.fixture(scope="session")
def finished(grid_config, tmp_path_factory):
    """The folder of a whole comparison; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "all"
    assert grids.run(grid_config, folder) == 0
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """Texts of 1 to 5 words, every twelfth of 10 or 20."""
    file = tmp_path_factory.mktemp("task") / "reviews.csv"
    rng = np.random.default_rng(0)
    with file.open("w", newline="") as stream:
        write = csv.writer(stream).writerow
        write(["text", "label"])
        for i in range(72):
            count = 1 + i % 5 if i % 12 else rng.choice([10, 20])
            write(
                [" ".join(f"word{n}" for n in rng.integers(0, 50, count)), "ab"[i % 2]]
            )
    return file


@pytest.fixture
def cheap(monkeypatch):
    """Turns of given seconds: each call of a step happens once."""

    def set_to(taken):
        def by_turns(steps, repeats):
            for step in steps.values():
                step()
            return {name: [taken[name]] * repeats for name in steps}

        monkeypatch.setattr("subtune_jax.study.timing.by_turns", by_turns)

    return set_to
