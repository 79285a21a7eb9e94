"""`subtune train`: choose, fine-tune, evaluate, and save the delta."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from subtune_jax.commands import cli, configs
from subtune_jax.training import run as training_run

ABOUT = "choose, fine-tune, evaluate, save the delta"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("train", ABOUT)
    return cli.run(parse, lambda s, given: training_run.run(s, given.workdir), argv)


def run(config: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """What `subtune train` does, from Python (public as `st.run`).

        result = st.run(config, "runs/mine")
        result["metrics"]["test"]

    Args:
      config: an `ml_collections.ConfigDict` or a dict, as a config file returns it.
      workdir: of the run; the same config on the same workdir resumes.

    Returns:
      The content of `result.json`.

    Raises:
      ValueError: an input is wrong; nothing was written.
      FloatingPointError: training failed; the last checkpoint stays.
    """
    path = training_run.run(configs.complete(config), Path(workdir))
    if jax.process_count() > 1:  # process 0 alone writes
        multihost_utils.sync_global_devices(f"result of {workdir}")
    return json.loads(path.read_text())
