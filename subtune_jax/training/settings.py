"""Settings: a config with all defaults filled in, as one plain dict.

Defaults live in the signature of each part's `make(...)`, those of a run itself in
`top`; here they are looked up, so that every key can be set from the command line and
none can be misspelt. Files and command lines are read by `commands/configs.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from subtune_jax.core import registry

Settings = dict[str, Any]

PLUGINS = {"task": "tasks", "backbone": "backbones", "method": "methods"}
# Sections that had another name until 2026-11: old configs, workdirs and command lines.
RENAMED = {
    "profile": "candidates",
    "search": "greedy",
    "finals": "baselines",
    "compare": "grid",
}
# Arguments of a plug-in that had another name until then.
RENAMED_ARGUMENTS = {"neuroada": {"k": "count"}}

# Keys of the section `grid` that hold changes of configs: by label, or one.
GRID_LABELS = {"tasks", "networks", "methods"}
GRID_CHANGES = {"profiles", "searches"}


def top(
    seed: int = 0,
    train_examples: int = 0,
    validation_examples: int = 0,
    batch_size: int = 32,
    train_steps: int = 200,
    eval_steps: int = 50,
    save_steps: int = 100,
    drift_examples: int | None = None,
    keep_delta: bool | None = None,
    report: bool | None = None,
    batch_norm: str = "frozen",
    trunk_cache: bool = True,
    dtype: str = "float32",
    parallel: str = "auto",
) -> Settings:
    """The keys of a config that belong to no section.

    Args:
      seed: decides shuffles, the new head, augmentation and what methods draw; any
        integer.
      train_examples: size of a stratified subset of the training split; 0 for all.
      validation_examples: size of a stratified subset of the validation split; 0 for
        all.
      batch_size: examples of one update, over all devices; 1 or more.
      train_steps: updates of the run; 1 or more.
      eval_steps: updates between two validations; 0 for one at the end.
      save_steps: updates between two checkpoints; 0 for none.
      drift_examples: how many validation examples the drift of the features is measured
        on; None for none.
      keep_delta: whether the delta stays on disk, as it does by None; False: it is
        measured and thrown away.
      report: whether pictures of the run are drawn; None: not in a comparison.
      batch_norm: `frozen`: running statistics stay as they are; `trained`: trained
        blocks use the statistics of the batch and update the running ones.
      trunk_cache: whether what lies below the first trained block is computed once,
        where nothing random comes before it.
      dtype: type of the computation, `float32` or `bfloat16`; selected values stay
        float32.
      parallel: how devices are driven: `pmap`, `shard_map`, or `auto`: `pmap` where
        there are several devices.
    """
    return dict(locals())


def complete(
    config: Mapping[str, Any], sections: Mapping[str, Callable[..., Any]]
) -> Settings:
    """`config` with every default filled in; unknown keys are refused.

    Args:
      config: keys of `top`, the three plug-ins, and sections.
      sections: name of a section -> the function whose arguments are its keys.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    defaults, parts = top(), [*PLUGINS, *sections]
    for key in config:
        if key not in defaults and key not in parts:
            known = registry.near(key, [*defaults, *parts])
            raise ValueError(f"no config key {key!r}; {known}")
    for part in PLUGINS:
        if part not in config or "name" not in config[part]:
            raise ValueError(f"the config has no {part}.name; each config needs one")
    settings = {key: config.get(key, default) for key, default in defaults.items()}
    for part in PLUGINS:
        settings[part] = _plugin(part, config[part])
    for part, known in registry.arguments_of(sections).items():
        settings[part] = _filled(part, config.get(part, {}), known)
    return settings


def with_changes(settings: Settings, *changes: Mapping[str, Any]) -> Settings:
    """`settings`, complete, with the keys of each of `changes` in their places.

    A change of a part's `name` drops what was said of the part it replaces.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    settings = dict(settings)
    for change in map(renamed, changes):
        for key, value in change.items():
            if key not in settings:
                raise ValueError(
                    f"no config key {key!r}; {registry.near(key, settings)}"
                )
            old = settings[key]
            if isinstance(value, Mapping) != isinstance(old, Mapping):
                kind = "a section" if isinstance(old, Mapping) else "no section"
                raise ValueError(
                    f"config key {key!r} was given {value!r}; it is {kind}"
                )
            if key in PLUGINS:
                name = value.get("name", old["name"])
                value = _arguments(value, name)
                kept = old if name == old["name"] else {"name": name}
                settings[key] = _plugin(key, {**kept, **value})
            elif isinstance(value, Mapping):
                settings[key] = _filled(key, value, old)
            else:
                settings[key] = value
    return settings


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with keys of before under their names of today, in changes too.

    Raises:
      ValueError: a key is there under both names.
    """
    today = {}
    for key, value in config.items():
        new = RENAMED.get(key, key)
        if new != key and new in config:
            raise ValueError(
                f"config has {key!r} and {new!r}, one section; give {new!r}"
            )
        if isinstance(value, Mapping):
            value = _arguments(value, str(value.get("name")))
        today[new] = value
    for key, value in dict(today.get("grid", {})).items():
        if key in GRID_LABELS and value:
            today["grid"][key] = {name: renamed(some) for name, some in value.items()}
        elif key in GRID_CHANGES and value:
            today["grid"][key] = renamed(value)
    return today


def _arguments(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Arguments of plug-in `name` that had another name, under that of today."""
    today = RENAMED_ARGUMENTS.get(name, {})
    for old, new in today.items():
        if old in config and new in config:
            raise ValueError(f"{name} has {old!r} and {new!r}, one key; give {new!r}")
    return {today.get(key, key): value for key, value in config.items()}


def _plugin(part: str, config: Mapping[str, Any]) -> Settings:
    known = registry.arguments(registry.maker(PLUGINS[part], str(config["name"])))
    return _filled(part, config, {"name": config["name"], **known})


def _filled(part: str, config: Mapping[str, Any], defaults: Settings) -> Settings:
    for key in config:
        if key not in defaults:
            known = registry.near(key, defaults)
            raise ValueError(f"no config key '{part}.{key}'; {known}")
    return {**defaults, **config}
