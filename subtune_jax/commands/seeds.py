"""`subtune seeds`: N seeds of one run by one program."""

import sys
from collections.abc import Sequence

from subtune_jax.commands import cli, study_export
from subtune_jax.study import seed_runs

ABOUT = "N seeds of one run by one program: how stable is it?"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parse = cli.parser("seeds", ABOUT)
    parse.add_argument("--count", type=int, default=5, help="how many seeds")
    parse.add_argument(
        "--how", choices=seed_runs.HOW, default="auto", help="auto: turns on a CPU"
    )
    job = study_export.exporting(
        parse,
        lambda s, given: seed_runs.train(s, given.workdir, given.count, given.how),
        arguments,
    )
    return cli.run(parse, job, arguments)
