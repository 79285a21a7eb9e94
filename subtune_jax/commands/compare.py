"""`subtune compare`: many runs, one table."""

from collections.abc import Sequence

from subtune_jax.commands import cli
from subtune_jax.study import comparison

ABOUT = "methods x tasks x networks x seeds, one table"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("compare", ABOUT)
    return cli.run(parse, lambda s, given: comparison.run(s, given.workdir), argv)
