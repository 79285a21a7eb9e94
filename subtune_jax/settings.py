"""Settings: a config file, its overrides and all defaults, as one plain dict.

The only files that know ml_collections are this one and the configs. Defaults live
in the signature of each part's `make(...)`; here they are looked up, so that every
key of every part can be set from the command line and none can be misspelt.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from subtune_jax import names

Settings = dict[str, Any]

TOP: Settings = {
    "seed": 0,  # of shuffles, the new head, augmentation and random methods
    "train_examples": 0,  # a stratified subset of the training split; 0 = all
    "validation_examples": 0,  # likewise of the validation split
    "batch_size": 32,  # global: the examples of one update
    "train_steps": 200,
    "eval_steps": 50,  # validation every so often; 0 = only at the end
    "save_steps": 100,  # a checkpoint every so often; 0 = none
    "drift_examples": None,  # of validation: how far have their features moved
    "keep_delta": None,  # False: the delta is measured and thrown away
    "report": None,  # pictures of the run: True, False, or None: not in a comparison
    "batch_norm": "frozen",  # or "trained": trained blocks use the batch's statistics
    "trunk_cache": True,  # compute what lies below the first trained block once
    "dtype": "float32",  # or "bfloat16": of the computation; selected values stay f32
    "parallel": "auto",  # or "pmap", "shard_map"
}
PLUGINS = {"task": "tasks", "backbone": "backbones", "method": "methods"}
PLAIN = {  # parts without a name: the module whose `make` they are the arguments of
    "optimizer": "optimizer",
    "augment": "augment",
    "trials": "folds",  # how `profile` and `search` value a candidate
    "profile": "candidates",
    "search": "greedy",
    "finals": "contenders",  # what `search` trains on all data at its end
    "compare": "grid",  # what `compare` runs
}


def read(spec: str, overrides: Mapping[str, str]) -> Settings:
    """The settings of config file `FILE[:ARG]` under `{"optimizer.ema": "0.9"}`.

    An override of a part's `name` drops what the file says of the part it replaces.

    Raises:
      ValueError: no such file, an unknown key, or a value of the wrong type.
    """
    given = _file(spec)
    for key in [key for key in overrides if key.endswith(".name")]:
        part = key.removesuffix(".name")
        if given.get(part, {}).get("name") != overrides[key]:
            given[part] = {"name": overrides[key]}
    settings = complete(given)
    for key, text in overrides.items():
        _override(settings, key, text)
    return settings


def complete(given: Mapping[str, Any]) -> Settings:
    """`given` with every default filled in; unknown keys are refused.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    parts = [*PLUGINS, *PLAIN]
    for key in given:
        if key not in TOP and key not in parts:
            known = names.near(key, [*TOP, *parts])
            raise ValueError(f"no config key {key!r}; {known}")
    settings = {**TOP, **{key: given[key] for key in TOP if key in given}}
    for part in PLUGINS:
        if part not in given or "name" not in given[part]:
            raise ValueError(f"the config has no {part}.name; each config needs one")
    for part in parts:
        own = dict(given.get(part, {}))
        defaults = dict(_defaults(part, own.get("name")))
        for key in own:
            if key not in defaults:
                known = names.near(key, defaults)
                raise ValueError(f"no config key '{part}.{key}'; {known}")
        settings[part] = {**defaults, **own}
    return settings


def changed(settings: Mapping[str, Any], *changes: Mapping[str, Any]) -> Settings:
    """`settings` with the keys of `changes` in their places, one after the other.

    A change of a part's `name` drops what was said of the part it replaces.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    given = dict(settings)
    for change in changes:
        for key, value in change.items():
            if not isinstance(value, Mapping):
                given[key] = value
                continue
            old = given.get(key, {})
            other = "name" in value and value["name"] != old.get("name")
            given[key] = {**({} if other else old), **value}
    return complete(given)


def _defaults(part: str, name: str | None) -> Iterator[tuple[str, Any]]:
    """(argument, default) of the part's `make`, name first; None for no default."""
    module = PLAIN.get(part)
    if module is None:
        names.check(PLUGINS[part], str(name))
        yield "name", name
        module = f"{PLUGINS[part]}.{name}"
    make = importlib.import_module(f"subtune_jax.{module}").make
    for key, parameter in inspect.signature(make).parameters.items():
        empty = parameter.default is inspect.Parameter.empty
        yield key, None if empty else parameter.default


def _override(settings: Settings, key: str, text: str) -> None:
    *parents, last = key.split(".")
    node: Any = settings
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
        raise ValueError(f"no config key {key!r}; {names.near(key, _keys(settings))}")
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
        near = names.near(path.name, [p.name for p in path.parent.glob("*.py")])
        raise ValueError(f"no config file {name}; {near}")
    module_spec = importlib.util.spec_from_file_location("subtune_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"config {name} is no Python file; it must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    config = module.get_config(argument) if argument else module.get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(f"{name}: get_config must return an ml_collections.ConfigDict")
    return config.to_dict()
