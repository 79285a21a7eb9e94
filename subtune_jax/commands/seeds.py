"""`subtune seeds`: N seeds of one run by one program."""

from collections.abc import Sequence

from subtune_jax.commands import cli
from subtune_jax.study import seed_runs

ABOUT = "N seeds of one run by one program: how stable is it?"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("seeds", ABOUT)
    parse.add_argument("--count", type=int, default=5, help="how many seeds")
    parse.add_argument(
        "--how", choices=seed_runs.HOW, default="auto", help="auto: turns on a CPU"
    )
    return cli.run(
        parse,
        lambda s, given: seed_runs.run(s, given.workdir, given.count, given.how),
        argv,
    )
