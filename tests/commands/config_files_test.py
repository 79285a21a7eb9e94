"""Settings: every key known, every default from its `make`, every typo explained."""

import pytest

from subtune_jax.commands import configs
from subtune_jax.training.settings import top

CONFIG = """
import ml_collections

def get_config(name="head"):
    config = ml_collections.ConfigDict()
    config.task = dict(name="structured")
    config.backbone = dict(name="mlp", image_size=8, widths=(4,))
    config.method = dict(name=name)
    config.optimizer = dict(learning_rate=0.1)
    config.train_steps = 7
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def test_defaults_fill_in_what_the_file_leaves_open(config):
    made = configs.read(config, {})
    assert made["train_steps"] == 7
    assert made["seed"] == top()["seed"]
    assert made["optimizer"]["name"] == "adamw"
    assert made["optimizer"]["learning_rate"] == 0.1
    assert made["backbone"]["widths"] == (4,)


def test_overrides_set_any_key_with_the_type_of_its_default(config):
    made = configs.read(
        config,
        {
            "seed": "3",
            "optimizer.ema": "0.9",
            "optimizer.clip_norm": "1",
            "backbone.widths": "(8, 8)",
            "augment.flip": "true",
        },
    )
    assert made["seed"] == 3
    assert made["optimizer"]["ema"] == 0.9
    assert made["optimizer"]["clip_norm"] == 1.0
    assert isinstance(made["optimizer"]["clip_norm"], float)
    assert made["backbone"]["widths"] == (8, 8)
    assert made["augment"]["flip"] is True


def test_an_argument_after_the_colon_reaches_get_config(config):
    assert configs.read(f"{config}:full", {})["method"]["name"] == "full"


def test_another_name_drops_the_keys_of_the_part_it_replaces(config):
    made = configs.read(config, {"method.name": "last", "method.count": "2"})
    assert made["method"] == {"name": "last", "count": 2}
    made = configs.read(config, {"backbone.name": "mlp"})
    assert made["backbone"]["image_size"] == 8  # the same name drops nothing


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train_step": "1"}, "no config key 'train_step'; did you mean 'train_steps'"),
        ({"optimizer.lr": "1"}, "no config key 'optimizer.lr'"),
        ({"optimizer": "1"}, "no config key 'optimizer'"),
        ({"method.name": "hed"}, "no method named 'hed'; did you mean 'head'"),
        ({"task.name": "emojis"}, "no task named 'emojis'; did you mean 'emoji'"),
        ({"train_steps": "many"}, "'train_steps' was given 'many'; it is of type int"),
        ({"augment.flip": "3"}, "'augment.flip' was given '3'; it is of type bool"),
    ],
)
def test_a_wrong_override_is_one_clear_line(config, overrides, message):
    with pytest.raises(ValueError) as caught:
        configs.read(config, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_of_the_file_names_the_nearest_known_one():
    with pytest.raises(ValueError, match="no config key 'sede'; did you mean 'seed'"):
        configs.complete({"sede": 1})
    given = {
        "task": {"name": "structured"},
        "backbone": {"name": "mlp"},
        "method": {"name": "head", "count": 1},
    }
    with pytest.raises(ValueError, match=r"no config key 'method\.count'"):
        configs.complete(given)


def test_a_missing_file_names_the_files_there_are(config):
    with pytest.raises(
        ValueError, match=r"config file .*conifg\.py is not there; did you mean"
    ):
        configs.read(config.replace("config.py", "conifg.py"), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "is no Python"),
        ("value = 1\n", "has no get_config; it must define one"),
        (None, "is a folder; "),
    ],
)
def test_a_file_that_is_no_config_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "odd.py"
    path.mkdir() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        configs.read(str(path), {})
    assert "\n" not in str(caught.value)
