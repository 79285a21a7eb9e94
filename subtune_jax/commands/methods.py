"""`subtune methods [NAME]`: what there is; with a name, its arguments."""

from collections.abc import Sequence

from subtune_jax.commands import catalogue

ABOUT = "selection methods: where a network may change"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return catalogue.main("methods", ABOUT, argv)
