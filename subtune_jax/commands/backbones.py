"""`subtune backbones [NAME]`: what there is; with a name, its arguments."""

from collections.abc import Sequence

from subtune_jax.commands import catalogue

ABOUT = "networks"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return catalogue.main("backbones", ABOUT, argv)
