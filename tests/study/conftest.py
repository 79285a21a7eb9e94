"""One small comparison, run once for all tests that read it."""

import grids
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
