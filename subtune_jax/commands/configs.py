"""Configs: ml_collections files and overrides on the command line, made complete.

    settings = read("configs/quickstart.py", {"optimizer.ema": "0.9"})

Only this file and the configs know ml_collections: all below takes plain arguments.
"""

import ast
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from subtune_jax.core import process, registry
from subtune_jax.data import augment
from subtune_jax.optim import optimizer
from subtune_jax.study import grid
from subtune_jax.subtuning import baselines, candidates, greedy, trials
from subtune_jax.training import settings as settings_
from subtune_jax.training.settings import RENAMED, RENAMED_ARGUMENTS, Settings

# A section has the name of the module that reads it; its keys are what `make` takes.
SECTIONS: dict[str, Callable[..., Any]] = {
    "optimizer": optimizer.make,
    "augment": augment.make,
    "trials": trials.make,
    "candidates": candidates.make,
    "greedy": greedy.make,
    "baselines": baselines.make,
    "grid": grid.make,
}


def read(spec: str, overrides: Mapping[str, str]) -> Settings:
    """The settings of config file `FILE[:ARG]` under `{"optimizer.ema": "0.9"}`.

    An override of a part's `name` drops what the file says of the part it replaces.

    Raises:
      ValueError: no such file, an unknown key, or a value of the wrong type.
    """
    config = _renamed(_file(spec))
    overrides = _renamed(overrides)
    for key in [key for key in overrides if key.endswith(".name")]:
        part = key.removesuffix(".name")
        if config.get(part, {}).get("name") != overrides[key]:
            config[part] = {"name": overrides[key]}
    settings = complete(config)
    for key, text in overrides.items():
        _override(settings, key, text)
    return settings


def complete(config: Mapping[str, Any]) -> Settings:
    """`config`, an `ml_collections.ConfigDict` or a plain dict, with all defaults.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return settings_.complete(_renamed(config), SECTIONS)


def _renamed(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of before under their names of today, with a line on stderr for each."""
    today = {}
    for key, value in keys.items():
        section, dot, rest = key.partition(".")
        if section in RENAMED:
            _tell("section", section, RENAMED[section])
        for old, new in _arguments_of_before(value).items():
            if old in value:
                _tell("key", f"{section}.{old}", f"{section}.{new}")
        today[f"{RENAMED.get(section, section)}{dot}{rest}"] = value
    return settings_.renamed(today)


def _arguments_of_before(part: Any) -> Mapping[str, str]:
    name = part.get("name") if isinstance(part, Mapping) else None
    return RENAMED_ARGUMENTS.get(str(name), {})


def _tell(kind: str, old: str, new: str) -> None:
    line = f"config {kind} {old!r} is now {new!r}; the old name is still read"
    process.say(line)


def _override(settings: Settings, key: str, text: str) -> None:
    *parents, last = key.split(".")
    node: Any = settings
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if last in _arguments_of_before(node):
        last = _arguments_of_before(node)[last]
        _tell("key", key, ".".join([*parents, last]))
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
        raise ValueError(
            f"no config key {key!r}; {registry.near(key, _keys(settings))}"
        )
    node[last] = _value(key, text, node[last])


def _value(key: str, text: str, default: Any) -> Any:
    """`text` as a Python literal of the type of `default`, else as a string."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, str):
        return text
    if default is None or value is None or isinstance(value, type(default)):
        return value
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, list) else (value,)
    kind = type(default).__name__
    raise ValueError(f"config key {key!r} was given {text!r}; it is of type {kind}")


def _keys(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in settings.items():
        here = f"{prefix}{key}"
        keys += _keys(value, f"{here}.") if isinstance(value, dict) else [here]
    return keys


def _file(spec: str) -> dict[str, Any]:
    """The plain dict of `get_config()` or `get_config(ARG)` in a Python file."""
    name, _, argument = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        near = registry.near(str(path), map(str, folder.glob("*.py")))
        what = "is a folder" if path.is_dir() else "is not there"
        raise ValueError(f"config file {name} {what}; {near}")
    module_spec = importlib.util.spec_from_file_location("subtune_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"config {name} is no Python file; it must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"config {name} is no Python: {error}; correct it") from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"config {name} has no get_config; it must define one")
    config = module.get_config(argument) if argument else module.get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(f"{name}: get_config must return an ml_collections.ConfigDict")
    return config.to_dict()
