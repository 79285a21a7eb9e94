"""Trees as flat dicts: nested dicts of arrays with one name, `a/b/c`, a leaf."""

from collections.abc import Callable, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Maps each leaf's path to the leaf, sorted by path; empty dicts vanish.

    >>> flatten({"b": {"w": 1}, "a": 2})
    {'a': 2, 'b/w': 1}
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return dict(sorted(flat.items())) if not prefix else flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    >>> nest({"a": 2, "b/w": 1})
    {'a': 2, 'b': {'w': 1}}
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def map_paths(
    function: Callable[..., Any], tree: Mapping[str, Any], *rest: Mapping[str, Any]
) -> dict[str, Any]:
    """Applies `function(path, leaf, *leaves of rest)` to every leaf of `tree`."""
    others = [flatten(other) for other in rest]
    return nest(
        {
            path: function(path, leaf, *(other[path] for other in others))
            for path, leaf in flatten(tree).items()
        }
    )
