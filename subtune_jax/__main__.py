"""`subtune NAME ...`, which is `python -m subtune_jax NAME ...`."""

import importlib
import sys

from subtune_jax.core import process
from subtune_jax.core.registry import near

COMMANDS = {
    "train": "choose, fine-tune, evaluate, save the delta",
    "profile": "how good is it to train each block alone?",
    "search": "which blocks should be trained? greedy search",
    "compare": "methods x tasks x networks x seeds, one table",
    "seeds": "N seeds of one run by one program: how stable is it?",
    "evaluate": "base + delta on a split",
    "delta": "info, verify, apply, diff, merge, export",
    "bench": "what a method costs, compared with full fine-tuning",
    "fetch": "real weights and data into the cache",
    "methods": "the selection methods; with a name, its arguments",
    "tasks": "the data sources, likewise",
    "backbones": "the networks, likewise",
}
# Commands that run without the extra [train]; all others ask for it before they start.
LIGHT = ("delta", "fetch")


def main() -> int:
    """Runs the command named first; returns its exit code."""
    usage = "usage: subtune NAME ...\n" + "\n".join(
        f"  {name:10}{what}" for name, what in COMMANDS.items()
    )
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(usage)
        return 0 if len(sys.argv) > 1 else 2
    name = sys.argv[1]
    if name not in COMMANDS:
        print(f"subtune: no command {name!r}; {near(name, COMMANDS)}", file=sys.stderr)
        return 2
    lacking = [] if name in LIGHT else process.absent("train")
    if lacking:
        print(process.lacking(f"subtune {name}", lacking), file=sys.stderr)
        return 2
    try:
        command = importlib.import_module(f"subtune_jax.commands.{name}")
        return command.main(sys.argv[2:])
    except ModuleNotFoundError as error:
        told = process.told(f"subtune {name}", error)
        if told is error:
            raise
        print(told, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
