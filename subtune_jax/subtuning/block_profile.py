"""SubTuning's finetuning profile: how good is it to train each block by itself?

    subtune profile --config=configs/subtuning_elpv.py --workdir=runs/profile
    subtune profile ... --proxy=all

Writes `profile.json` and `profile.png`, and a journal: the same command on the same
workdir resumes and repeats no finished trial. The test split is never read. With
`--proxy`, cheap scores of the blocks stand with the profile, and their rank
correlation to it; `--proxy-only` takes the scores alone.

Source: Kaplun et al., arXiv:2302.06354; metric and split are named in the file.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from subtune_jax.core import process
from subtune_jax.report import profiles
from subtune_jax.subtuning import candidates, evaluator, journal, proxies, trials
from subtune_jax.subtuning.candidates import Candidate, CandidateOptions, Set
from subtune_jax.subtuning.evaluator import Evaluator
from subtune_jax.subtuning.trials import Testbed
from subtune_jax.training import setup, workdir
from subtune_jax.training.settings import Settings


def run(
    settings: Settings, folder: Path, proxy: str | None = None, only: bool = False
) -> Path:
    """Runs or resumes the profile of `folder`; the path of its `profile.json`.

    Args:
      settings: complete.
      folder: the workdir.
      proxy: `all` or `NAME,NAME`: cheap scores that stand with the profile.
      only: take these scores alone.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    names = proxies.parse(proxy)
    if only and not names:
        raise ValueError(f"--proxy-only without --proxy; {proxies.known()}")
    options = candidates.make(**settings["candidates"])
    trial_options = trials.make(**settings["trials"])
    workdir.check(folder, settings)
    prepared = setup.prepare(settings)
    blocks = trials.blocks(prepared)
    for length in options.runs:
        if length > len(blocks):
            raise ValueError(f"candidates.runs has {length}; there are {len(blocks)}")
    record = journal.read(folder)
    testbed = trials.prepare(prepared, trial_options, folder)
    workdir.claim(folder, settings)
    evaluation = Evaluator(
        testbed, record, trial_options,
        lambda names: candidate(testbed, blocks, names, options), process.latest(),
    )  # fmt: skip
    content = evaluator.about(prepared, "candidates")
    rows = [] if only else _rows(evaluation, blocks, options)
    content |= {"reinitialise": options.reinitialise, "rows": rows}
    content["cost"] = evaluator.cost(record)
    if rows:
        singles = [row for row in rows if len(row["blocks"]) == 1] or rows
        longest = max(row["steps"] for row in singles)
        ended = [row for row in singles if row["steps"] == longest]
        fine = [row for row in ended if math.isfinite(row["loss"])]
        if fine:  # one at least did not diverge
            content["best"] = max(fine, key=lambda row: row["mean"])["blocks"]
    if names:
        scores = proxies.scores(testbed, blocks, record)
        content["proxies"] = proxies.compare(scores, names, rows)
    path = workdir.write_json(folder / "profile.json", content)
    if rows and jax.process_index() == 0:
        (folder / "profile.png").write_bytes(profiles.profile(content))
    return path


def candidate(
    testbed: Testbed, blocks: Sequence[str], names: Set, options: CandidateOptions
) -> Candidate:
    """What is trained, and what starts from random values, for a set of blocks."""
    how = options.reinitialise
    trained = {"frozen": (), "full": tuple(blocks)}.get(how, names)
    return trials.candidate(testbed, trained, () if how == "nothing" else names)


def _rows(
    evaluation: Evaluator, blocks: Sequence[str], options: CandidateOptions
) -> list[dict[str, Any]]:
    """A row for each set; references are trained to the end whatever halving does."""
    sets = candidates.sets(blocks, options)
    references = [names for names in sets if names in ((), tuple(blocks))]
    to_the_end = evaluation.options._replace(halving=0)
    evaluator.values(evaluation._replace(options=to_the_end), references)
    evaluator.values(evaluation, [names for names in sets if names not in references])
    return [evaluator.row(evaluation, names) for names in sets]
