"""Results of many runs without what is repeated in them, and back, to the last digit.

What all runs share stands once, in `same`. Of a run's config only the keys that differ
from the study's are kept. A mean and a deviation that follow from `values` are left
out.
"""

import json
from collections.abc import Mapping
from typing import Any

from subtune_jax.core import registry
from subtune_jax.study import grid
from subtune_jax.subtuning import evaluator

REPEATED = ("config", "versions")  # of a run, mostly its study's
MEANS = ("mean", "std")  # follow from `values`

Content = dict[str, Any]


def pack(runs: Mapping[str, Content], study: Mapping[str, Any]) -> Content:
    """`same` and `runs`, without what `study` says already."""
    every = list(runs.values())
    shared = set.intersection(*map(set, every)) - set(REPEATED)
    same = {
        key: value
        for key, value in every[0].items()
        if key in shared and all(run[key] == value for run in every)
    }
    packed = {}
    for name, run in runs.items():
        own = {key: value for key, value in run.items() if key not in same}
        for key in REPEATED:
            own.pop(key)
        if run["versions"] != study["versions"]:
            own["versions"] = run["versions"]
        if changes := _changes(run["config"], _of_runs(study["config"])):
            own["config"] = changes
        packed[name] = _without_means(own)
    return {"same": same, "runs": packed} if same else {"runs": packed}


def unpack(content: Mapping[str, Any]) -> Content:
    """The content of a study's file with complete `runs` and without `same`."""
    study = {key: value for key, value in content.items() if key != "same"}
    repeated = {key: study[key] for key in REPEATED if key in study}
    runs = {}
    for name, own in study.get("runs", {}).items():
        config = _overlaid(_of_runs(study["config"]), own.get("config", {}))
        run = {**repeated, **content.get("same", {}), **own, "config": config}
        runs[name] = _with_means(run)
    return {**study, "runs": runs} if runs else study


def _of_runs(config: Mapping[str, Any]) -> Content:
    """The study's config as its runs have it: they compare nothing themselves."""
    none = json.loads(json.dumps(registry.arguments(grid.make)))
    return {**config, **({"grid": none} if "grid" in config else {})}


def _changes(config: Mapping[str, Any], plain: Mapping[str, Any]) -> Content:
    """Keys of `config` that differ from `plain`; a part of another name is whole."""
    changes: Content = {}
    for key, value in config.items():
        if _same_part(value, plain.get(key)):
            if other := _changes(value, plain[key]):
                changes[key] = other
        elif key not in plain or plain[key] != value:
            changes[key] = value
    return changes


def _overlaid(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> Content:
    """`plain` with the keys of `changes`; a part with a name replaces the other."""
    config = dict(plain)
    for key, value in changes.items():
        part = isinstance(value, Mapping) and isinstance(plain.get(key), Mapping)
        merges = part and "name" not in value
        config[key] = _overlaid(plain[key], value) if merges else value
    return config


def _same_part(part: Any, other: Any) -> bool:
    """Are both dicts, of the same plug-in if they are of one?"""
    if not isinstance(part, Mapping) or not isinstance(other, Mapping):
        return False
    return part.get("name") == other.get("name")


def _without_means(value: Any) -> Any:
    """Without each `mean` and `std` that is the summary of its `values`."""
    if isinstance(value, list):
        return [_without_means(part) for part in value]
    if not isinstance(value, dict):
        return value
    follows = _means(value)
    return {
        key: _without_means(part)
        for key, part in value.items()
        if key not in MEANS or follows is None or part != follows[key]
    }


def _with_means(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_means(part) for part in value]
    if not isinstance(value, dict):
        return value
    follows = _means(value) or {}
    means = {key: follows[key] for key in MEANS if key in follows}
    return {**means, **{key: _with_means(part) for key, part in value.items()}}


def _means(value: Content) -> Content | None:
    numbers = value.get("values")
    if not isinstance(numbers, list) or not numbers:
        return None
    return evaluator.summary(numbers)
