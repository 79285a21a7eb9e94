"""`subtune search`: greedy SubTuning."""

from collections.abc import Sequence

from subtune_jax.commands import cli
from subtune_jax.subtuning import block_search

ABOUT = "which blocks should be trained? greedy search"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("search", ABOUT)
    return cli.run(parse, lambda s, given: block_search.run(s, given.workdir), argv)
