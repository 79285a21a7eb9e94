"""Settings: names of before are read under those of today."""

import json

import pytest

from subtune_jax.commands import configs
from subtune_jax.training import settings, workdir

CONFIG = {
    "task": {"name": "structured", "examples": 40, "image_size": 8},
    "backbone": {"name": "mlp", "image_size": 8},
}


def test_arguments_of_before_are_read_in_files_and_in_changes():
    old = CONFIG | {"method": {"name": "neuroada", "k": 2}}
    method = configs.complete(old)["method"]
    assert method["name"] == "neuroada" and method["count"] == 2
    other = configs.complete(CONFIG | {"method": {"name": "gps", "k": 3}})
    assert other["method"]["k"] == 3  # another method's argument of that name
    changed = settings.with_changes(other, {"method": {"name": "neuroada", "k": 4}})
    assert changed["method"]["count"] == 4


def test_a_line_tells_the_name_of_today(tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_text(
        "import ml_collections\n"
        f"def get_config():\n    return ml_collections.ConfigDict({CONFIG!r} | "
        "{'method': {'name': 'neuroada', 'k': 2}})\n"
    )
    line = "config key 'method.k' is now 'method.count'; the old name is still read\n"
    assert configs.read(str(file), {})["method"]["count"] == 2
    assert capsys.readouterr().err == line
    assert configs.read(str(file), {"method.k": "3"})["method"]["count"] == 3
    assert capsys.readouterr().err == 2 * line


def test_a_workdir_of_before_an_argument_came_is_that_of_its_default(tmp_path):
    config = CONFIG | {"method": {"name": "neuroada", "count": 2}}
    today = configs.complete(config)
    old = today | {"method": {"name": "neuroada", "k": 2, "among": ".*kernel"}}
    (tmp_path / workdir.CONFIG).write_text(json.dumps(old))
    workdir.check(tmp_path, today)
    other = settings.with_changes(today, {"method": {"largest": False}})
    with pytest.raises(ValueError, match="method.largest is True there and False here"):
        workdir.check(tmp_path, other)
