"""`subtune evaluate`: base + delta on a split."""

from collections.abc import Sequence
from pathlib import Path

from subtune_jax.commands import cli
from subtune_jax.training import evaluation

ABOUT = "base + delta on a split"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("evaluate", ABOUT)
    parse.add_argument("--delta", type=Path, help="a delta folder; WORKDIR/delta")
    parse.add_argument("--split", choices=evaluation.SPLITS, default="test")
    return cli.run(
        parse,
        lambda s, given: evaluation.run(s, given.workdir, given.delta, given.split),
        argv,
    )
