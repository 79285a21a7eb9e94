"""Paths: the leaves of any tree by name, `a/b/c`.

For trees of any kind, and one that keeps its structure to the letter; `trees` is for
nested dicts that become flat files and back.
"""

import difflib
import re
from collections.abc import Callable, Collection
from typing import Any

import jax


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by path, sorted by path; a bare array's path is `""`."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return dict(
        sorted(((_path(keys), leaf) for keys, leaf in flat), key=lambda p: p[0])
    )


def map_leaves(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Applies `function(path, leaf)` to every leaf of any tree.

    Unlike `trees.map_paths` it keeps blocks without parameters, as empty dicts.
    """
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(_path(keys), leaf), tree
    )


def nearest(wanted: str, paths: Collection[str]) -> str:
    """`"nearest of 8: 'a/b', ..."`: three paths that hold what is most like `wanted`.

    Stands in for `names.near` where there are too many to list, and looks inside a
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
