"""Which tests are slow besides those that say so themselves, and a third of them."""

import fnmatch
import zlib

import pytest

from subtune_jax.core import registry

NETWORKS = registry.plugins("backbones")
FAST = (
    "mlp"  # whose programs compile fastest: every method on it, and on one of the rest
)

# Node ids under tests/, with * and ?; each promise keeps a form that is not slow.
SLOW = ()


def mark(config, items):
    """Marks what SLOW names, and methods on networks of another's turn.

    Raises:
      UsageError: a pattern names no test of its file, all of which is here.
    """
    whole = not any("::" in argument for argument in config.args)
    names = {item: _name(item) for item in items}
    for item in filter(_other_turn, items):
        item.add_marker(pytest.mark.slow)
    for pattern in SLOW:
        found = [i for i, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
        for item in found:
            item.add_marker(pytest.mark.slow)
        file = pattern.partition("::")[0]
        here = any(name.startswith(f"{file}::") for name in names.values())
        if whole and here and not found:
            raise pytest.UsageError(f"tests/slow_tests.py: no test is {pattern}")


def _other_turn(item):
    """Is it a promise of a method on a network that is another method's turn?

    Each method is tried on the fastest network and on one more, by its name.
    """
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    method, network = parameters.get("method"), parameters.get("evidence")
    if not isinstance(method, str) or network not in NETWORKS or network == FAST:
        return False
    others = [name for name in NETWORKS if name != FAST]
    return network != others[zlib.crc32(method.encode()) % len(others)]


def keep_a_third(config, items, commit):
    """Leaves out two thirds of the slow tests; neighbours fall into different ones."""
    slow = sorted((i for i in items if i.get_closest_marker("slow")), key=_name)
    kept = set(slow[int(commit, 16) % 3 :: 3])
    dropped = [item for item in slow if item not in kept]
    config.hook.pytest_deselected(items=dropped)
    gone = set(dropped)
    items[:] = [item for item in items if item not in gone]


def _name(item):
    """The node id below tests/, with brackets that fnmatch reads as themselves."""
    return item.nodeid.removeprefix("tests/").replace("[", "(").replace("]", ")")
