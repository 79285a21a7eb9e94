"""`--export=PATH.json` of the commands that make a study."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from subtune_jax.commands.cli import Job
from subtune_jax.study import study_file, study_pictures
from subtune_jax.training.settings import Settings


def exporting(parse: argparse.ArgumentParser, job: Job, argv: Sequence[str]) -> Job:
    """`job`, whose figures `--export` writes into one file, pictures next to it.

    Args:
      parse: gets the argument.
      job: writes the study's workdir.
      argv: what the command was given, noted in the file.
    """
    about = "also write every run's figures to one file, and its pictures next to it"
    parse.add_argument("--export", type=Path, metavar="PATH.json", help=about)
    command = shlex.join([*parse.prog.split(), *argv])

    def work(settings: Settings, given: argparse.Namespace) -> Path:
        study_file.check_path(given.export)
        path = job(settings, given)
        if given.export is not None:
            study_file.write(given.workdir, given.export, command)
            study_pictures.save(study_file.read(given.export), given.export.parent)
            print(f"exported to {given.export}", file=sys.stderr, flush=True)
        return path

    return work
