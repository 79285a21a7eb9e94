"""The command line: `--config=FILE[:ARG] --config.KEY=VALUE --workdir=DIR`."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from subtune_jax.commands import configs, keys
from subtune_jax.core import process
from subtune_jax.training.settings import Settings

Job = Callable[[Settings, argparse.Namespace], Path]


class Parser(argparse.ArgumentParser):
    """Lists the config's keys below the help, when it is asked for."""

    def format_help(self) -> str:
        """The help of `subtune NAME`, then the keys that the command reads."""
        return super().format_help() + "\n" + keys.help_text(self.prog.split()[-1])


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser of `--config`, `--workdir`; overrides are taken out by `run`."""
    made = Parser(
        prog=f"subtune {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="an ml_collections file"
    )
    made.add_argument("--workdir", required=True, type=Path, help="where results go")
    group = made.add_argument_group("several processes (jax.distributed)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process", type=int, help="which one this is, from 0")
    return made


def run(parse: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    """Parses, runs `job` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    overrides = [a for a in arguments if a.startswith("--config.")]
    rest = [a for a in arguments if not a.startswith("--config.")]
    try:
        given = parse.parse_args(rest)
    except SystemExit as stop:
        return int(stop.code or 0)

    def work() -> Path:
        _connect(given)
        process.cache_compilations()
        process.keep_memory()
        _show_log()
        pairs = dict(_pair(text) for text in overrides)
        return job(configs.read(given.config, pairs), given)

    return process.guard(parse.prog, work)


def _show_log() -> None:
    """What the package logs, on stderr: nobody else's."""
    log = logging.getLogger("subtune_jax")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _connect(given: argparse.Namespace) -> None:
    """Joins the other processes, when there are any; before anything uses jax."""
    three = (given.coordinator, given.processes, given.process)
    if any(part is not None for part in three):
        if any(part is None for part in three):
            raise ValueError("--coordinator, --processes and --process go together")
        jax.distributed.initialize(*three)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.removeprefix("--config.").partition("=")
    if not equals:
        raise ValueError(f"{text} has no value; write --config.{key}=VALUE")
    return key, value
