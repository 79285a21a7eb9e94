"""`subtune compare`: many runs, one table."""

import sys
from collections.abc import Sequence

from subtune_jax.commands import cli, study_export
from subtune_jax.study import comparison

ABOUT = "methods x tasks x networks x seeds, one table"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parse = cli.parser("compare", ABOUT)
    job = study_export.exporting(
        parse, lambda s, given: comparison.compare(s, given.workdir), arguments
    )
    return cli.run(parse, job, arguments)
