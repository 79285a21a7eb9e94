"""`subtune bench`: what a method costs, compared with full fine-tuning."""

import shlex
import sys
from collections.abc import Sequence

from subtune_jax.commands import cli, study_export
from subtune_jax.core import registry
from subtune_jax.study import benchmark

ABOUT = "what a method costs, compared with full fine-tuning"
REPEATS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("bench", ABOUT)
    known = ", ".join(registry.plugins("study.benches"))
    parse.add_argument("--only", metavar="NAME,NAME", help=f"some of {known}")
    parse.add_argument(
        "--repeats", type=int, default=REPEATS, help="turns of every timing"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["subtune", "bench", *arguments])
    job = study_export.exporting(
        parse,
        lambda s, given: benchmark.measure(
            s, given.workdir, given.only, given.repeats, command
        ),
        arguments,
    )
    return cli.run(parse, job, arguments)
