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


BOTH = {"search": {"epsilon": 0.1}, "greedy": {"epsilon": 0.2}}


def test_a_section_under_both_its_names_is_refused():
    with pytest.raises(ValueError, match="'search' and 'greedy', one section"):
        settings.renamed(BOTH)


def test_changes_of_a_grid_are_read_under_names_of_before():
    grid = {
        "tasks": {"profile": {"finals": {"repeats": 1}}, "plain": {}},
        "searches": {"search": {"max_items": 1}},
        "profiles": None,
    }
    assert settings.renamed({"compare": grid}) == {
        "grid": {
            "tasks": {"profile": {"baselines": {"repeats": 1}}, "plain": {}},
            "searches": {"greedy": {"max_items": 1}},
            "profiles": None,
        }
    }
    nothing = {"tasks": None, "networks": None, "methods": None, "searches": None}
    assert settings.renamed({"grid": nothing}) == {"grid": nothing}


def test_a_change_without_a_name_is_read_for_the_plug_in_it_changes():
    whole = configs.complete(
        {
            "task": {"name": "structured"},
            "backbone": {"name": "mlp"},
            "method": {"name": "neuroada", "count": 4},
        }
    )
    assert settings.with_changes(whole, {"method": {"k": 3}})["method"]["count"] == 3


@pytest.mark.parametrize("change", [{"method": "full"}, {"seed": {"value": 1}}])
def test_a_change_of_the_wrong_kind_is_refused(change):
    whole = configs.complete(
        {
            "task": {"name": "structured"},
            "backbone": {"name": "mlp"},
            "method": {"name": "full"},
        }
    )
    with pytest.raises(ValueError, match="was given"):
        settings.with_changes(whole, change)
