"""SubTuning's finetuning profile: how good is it to train each block by itself?

    subtune profile --config=configs/subtuning_elpv.py --workdir=runs/profile
    subtune profile ... --proxy=all

Writes `profile.json` and `profile.png`, and a journal: the same command on the same
workdir resumes and repeats no finished trial. The test split is never read. With
`--proxy`, cheap scores of the blocks stand beside the profile, and their rank
correlation to it; `--proxy-only` takes the scores alone.

Source: Kaplun et al., arXiv:2302.06354; metric and split are named in the file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subtune_jax import delta
from subtune_jax.core import progress, trees
from subtune_jax.report import profiles
from subtune_jax.subtuning import candidates, evaluator, journal, proxies, trials
from subtune_jax.subtuning.candidates import ProfileOptions
from subtune_jax.subtuning.evaluator import Set, Valued
from subtune_jax.subtuning.trial_state import Candidate
from subtune_jax.subtuning.trials import Trials
from subtune_jax.training import results, setup, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup


def run(
    settings: Settings, folder: Path, proxy: str | None = None, only: bool = False
) -> Path:
    """Runs or resumes the profile of `folder`; the path of its `profile.json`.

    Args:
      settings: complete.
      folder: the workdir.
      proxy: `all` or `NAME,NAME`: cheap scores that stand beside the profile.
      only: take these scores alone.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    wanted = proxies.wanted(proxy)
    if only and not wanted:
        raise ValueError(f"--proxy-only without --proxy; {proxies.known()}")
    options = candidates.make(**settings["candidates"])
    workdir.check(folder, settings)
    made = setup.prepare(settings)
    blocks = own_blocks(made)
    for length in options.runs:
        if length > len(blocks):
            raise ValueError(f"candidates.runs has {length}; there are {len(blocks)}")
    record, how = journal.read(folder), trials.make(**settings["trials"])
    tried = trials.open_trials(made, how, folder)
    workdir.claim(folder, settings)
    value = Valued(
        tried, record, how.halving, how.least_steps,
        lambda one: candidate(tried, blocks, one, options), progress.latest(),
    )  # fmt: skip
    content = head(made, "candidates") | {"reinitialise": options.reinitialise}
    rows = [] if only else _rows(value, blocks, options)
    content |= {"rows": rows, "cost": evaluator.cost(record)}
    if rows:
        singles = [row for row in rows if len(row["blocks"]) == 1] or rows
        longest = max(row["steps"] for row in singles)
        done = [row for row in singles if row["steps"] == longest]
        content["best"] = max(done, key=lambda row: row["mean"])["blocks"]
    if wanted:
        scored = proxies.scores(tried, blocks, record)
        content["proxies"] = proxies.beside(scored, wanted, rows)
    path = workdir.write_json(folder / "profile.json", content)
    if rows:
        (folder / "profile.png").write_bytes(profiles.profile(content))
    return path


def own_blocks(made: Setup) -> list[str]:
    """The blocks below the head that have parameters."""
    flat = trees.flatten(made.base.params)
    owners = {path.split("/")[0] for path in flat}
    return [block for block in made.backbone.blocks[:-1] if block in owners]


def head(made: Setup, part: str) -> dict[str, Any]:
    """What every result says of its run: task, network, metric, where it was taken."""
    count = made.settings["trials"]["folds"]
    return {
        "task": made.task.name,
        "backbone": made.backbone.name,
        "metric": made.task.metric_name,
        "split": f"{count} folds of train and validation" if count else "validation",
        "examples": {
            "train": len(made.train.labels),
            "validation": len(made.validation.labels),
        },
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
        "config": made.settings,
        "options": made.settings[part],
        "versions": results.versions(),
    }


def candidate(
    tried: Trials, blocks: Sequence[str], one: Set, options: ProfileOptions
) -> Candidate:
    """What is trained, and what starts from random values, for a set of blocks."""
    how = options.reinitialise
    trained = {"frozen": (), "full": tuple(blocks)}.get(how, one)
    return trials.candidate(tried, trained, () if how == "nothing" else one)


def _rows(
    value: Valued, blocks: Sequence[str], options: ProfileOptions
) -> list[dict[str, Any]]:
    """A row for each set; references are trained to the end whatever halving does."""
    sets = candidates.sets(blocks, options)
    references = [one for one in sets if one in ((), tuple(blocks))]
    evaluator.values(value._replace(halving=0), references)
    evaluator.values(value, [one for one in sets if one not in references])
    return [evaluator.row(value, one) for one in sets]
