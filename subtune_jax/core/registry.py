"""The registry: plug-in files by name, and what a typo meant."""

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def near(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'x'? there are ..."`, for the end of an error message.

    Where something is near, a list of more than 20 is left out.

    >>> near("fulll", ["head", "full"])
    "did you mean 'full'? there are full, head"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    if close and len(known) > 20:
        return f"{hint}there are {len(known)}"
    return f"{hint}there are {', '.join(known) or 'none'}"


def plugins(package: str) -> list[str]:
    """The names of the files in `subtune_jax/<package>/`, sorted: a registry."""
    root = importlib.import_module(f"subtune_jax.{package}")
    files = pkgutil.iter_modules(root.__path__)
    return sorted(file.name for file in files if not file.ispkg)


def check(package: str, name: str) -> None:
    """Refuses, by ValueError, a name that has no file in `subtune_jax/<package>/`."""
    if name not in plugins(package):
        kind = package.removesuffix("s")
        raise ValueError(f"no {kind} named {name!r}; {near(name, plugins(package))}")


def check_choice(key: str, value: str, known: Iterable[str]) -> None:
    """Refuses, by ValueError, a `value` of `key` that is not among `known`."""
    if value not in known:
        raise ValueError(f"{key}={value!r} is not known; {near(value, known)}")


def maker(package: str, name: str) -> Callable[..., Any]:
    """The function `make` of `subtune_jax/<package>/<name>.py`.

    A file without one is a preset, `PRESET = {"name": another file, **arguments}`: the
    function `make` of that file, with these defaults.

    Raises:
      ValueError: there is no file of that name, or it presets what is not there.
    """
    check(package, name)
    module = importlib.import_module(f"subtune_jax.{package}.{name}")
    if not hasattr(module, "PRESET"):
        return module.make
    preset = dict(module.PRESET)
    make = maker(package, preset.pop("name"))
    _check_arguments(package, name, make, preset)
    preset_make = functools.partial(make, **preset)
    preset_make.__doc__ = make.__doc__
    return preset_make


def arguments(make: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> default, in order; None for no default.

    >>> arguments(near)
    {'name': None, 'known': None}
    """
    empty, known = inspect.Parameter.empty, inspect.signature(make).parameters
    defaults = {key: parameter.default for key, parameter in known.items()}
    return {key: None if d is empty else d for key, d in defaults.items()}


def arguments_of(sections: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """Name of each section -> `arguments` of its function."""
    return {name: arguments(make) for name, make in sections.items()}


def load(package: str, spec: Mapping[str, Any]) -> Any:
    """Calls `subtune_jax.<package>.<name>.make(**rest)` for `spec = {name, **rest}`.

    Raises:
      ValueError: there is no file of that name, or `make` takes no such argument.
    """
    keys = dict(spec)
    name = keys.pop("name")
    make = maker(package, name)
    _check_arguments(package, name, make, keys)
    return make(**keys)


def _check_arguments(
    package: str, name: str, make: Callable[..., Any], keys: Iterable[str]
) -> None:
    known = arguments(make)
    for key in keys:
        if key not in known:
            what = f"{package.removesuffix('s')} {name!r} takes no {key!r}"
            raise ValueError(f"{what}; {near(key, known)}")
