"""Progress: lines on stderr while something long runs; sizes as people read them."""

import os
import sys
from collections.abc import Callable

import jax


def say(line: str) -> None:
    """One line on stderr, by process 0."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def latest() -> Callable[[str], None]:
    """Says lines on stderr: the latest one on a terminal, all of them otherwise."""
    if not sys.stderr.isatty():
        return lambda line: print(line, file=sys.stderr, flush=True)

    def over(line: str) -> None:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)

    return over


def size(count: int) -> str:
    """Bytes in three digits, such as `"291 kB"`."""
    for unit_size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit_size:
            return f"{count / unit_size:.3g} {unit}"
    return f"{count} B"
