"""Trees by the names of their leaves, `a/b/c`.

`flatten` and `nest` are for nested dicts that become flat files and back; `leaves`
and `map_leaves` are for trees of any kind.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax


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


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by path, sorted by path; a bare array's path is `""`."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return dict(
        sorted(((_path(keys), leaf) for keys, leaf in flat), key=lambda p: p[0])
    )


def pick(tree: Any, paths: Iterable[str]) -> dict[str, Any]:
    """The leaves of any tree at `paths`, by path.

    >>> pick({"a": {"w": 1, "b": 2}, "c": 3}, ["a/b", "c"])
    {'a/b': 2, 'c': 3}
    """
    found = leaves(tree)
    return {path: found[path] for path in paths}


def map_leaves(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Applies `function(path, leaf)` to every leaf of any tree.

    The structure is kept to the letter, empty dicts included.
    """
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(_path(keys), leaf), tree
    )


def rebuild(tree: Any, flat: Mapping[str, Any], default: Any = None) -> Any:
    """A tree of the structure of `tree` that holds `flat[path]`, else `default`.

    >>> rebuild({"a": {"w": 1, "b": 2}}, {"a/w": 3}, 0)
    {'a': {'b': 0, 'w': 3}}
    """
    return map_leaves(lambda path, _: flat.get(path, default), tree)


def nearest(wanted: str, paths: Collection[str]) -> str:
    """`"nearest of 8: 'a/b', ..."`: three paths that hold what is most like `wanted`.

    Stands in for `registry.near` where there are too many to list, and looks inside a
    path, so that `kernel` or a regular expression finds what it was meant for.
    """
    words = "/".join(re.findall(r"\w+", wanted))

    def likeness(path: str) -> float:
        parts = path.split("/")
        ends = range(1, len(parts) + 1)
        spans = ["/".join(parts[i:j]) for j in ends for i in range(j)]
        return max(difflib.SequenceMatcher(None, words, s).ratio() for s in spans)

    best = sorted(paths, key=likeness, reverse=True)[:3]
    return f"nearest of {len(paths)}: {', '.join(map(repr, best)) or 'none'}"


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
