"""Greedy SubTuning: which blocks should be trained? Then trains them, and what to beat.

    subtune search --config=configs/subtuning_elpv.py --workdir=runs/search

Writes `search.json` and `search.png`, and a journal: the same command on the same
workdir resumes and repeats no finished trial. Candidates are valued on folds or on the
validation split; the test split is read once, at the end, for the final trainings.
`subtune train` makes a delta of what was found, with
`--config.method.name=blocks --config.method.names="('block03','block09')"`.

Source: Kaplun et al., arXiv:2302.06354; see `greedy` for the rules.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from subtune_jax.core import progress, trees
from subtune_jax.report import searches
from subtune_jax.selection.masks import find
from subtune_jax.subtuning import (
    baselines,
    block_profile,
    cost_model,
    evaluator,
    final_training,
    greedy,
    journal,
    trials,
)
from subtune_jax.subtuning.evaluator import Set, Valued
from subtune_jax.subtuning.greedy import Outcome, SearchOptions
from subtune_jax.training import setup, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup


def run(settings: Settings, folder: Path) -> Path:
    """Runs or resumes the search of `folder`; the path of its `search.json`.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    options = greedy.make(**settings["greedy"])
    last = baselines.make(**settings["baselines"])
    workdir.check(folder, settings)
    if (folder / "search.json").exists():
        return folder / "search.json"
    made = setup.prepare(settings)
    items = choices(made, options)
    record, how = journal.read(folder), trials.make(**settings["trials"])
    tried = trials.open_trials(made, how, folder)
    price = cost_model.pricer(made, lambda one: trials.candidate(tried, one).trained)
    greedy.check(options, price)
    workdir.claim(folder, settings)
    say = progress.latest()
    value = Valued(
        tried, record, how.halving, how.least_steps,
        lambda one: trials.candidate(tried, one), say,
    )  # fmt: skip
    rows: list[dict[Set, dict[str, Any]]] = []

    def values(sets: Sequence[Set]) -> Mapping[Set, float]:
        found = evaluator.values(value, sets)
        rows.append({one: evaluator.row(value, one) for one in sets})
        return found

    outcome = greedy.search(items, values, options, price)
    content = block_profile.head(made, "greedy") | {"items": items}
    content |= _report(outcome, options, rows)
    content["cost"] = evaluator.cost(record)
    chosen = trials.candidate(tried, outcome.selected)
    wanted = baselines.plan(tried, last.rows, chosen, block_profile.own_blocks(made))
    if last.repeats:
        found = final_training.run(tried, record, wanted, last, folder, say)
        content["final"] = {"split": "test", "rows": found}
    path = workdir.write_json(folder / "search.json", content)
    (folder / "search.png").write_bytes(searches.search(content))
    return path


def choices(made: Setup, options: SearchOptions) -> list[str]:
    """The blocks, or the arrays, to choose among, in the order of the network.

    Raises:
      ValueError: `among` matches none.
    """
    blocks = block_profile.own_blocks(made)
    if options.granularity == "blocks":
        known = {block: 0 for block in blocks}
    else:
        flat = trees.flatten(made.base.params)
        owner = {path: blocks.index(path.split("/")[0]) for path in flat}
        known = dict(sorted(owner.items(), key=lambda item: item[1]))
    found = find(known, options.among)
    return [name for name in known if name in found]


def _report(
    outcome: Outcome, options: SearchOptions, rows: list[dict[Set, dict[str, Any]]]
) -> dict[str, Any]:
    """The outcome as JSON, each set with what is on record of it."""
    first, *rest = rows
    return {
        "direction": options.direction,
        "rule": options.rule,
        "epsilon": options.epsilon,
        "start": first[outcome.start],
        "rounds": [
            {
                "candidates": list(known.values()),
                "chosen": list(turn["chosen"]),
                "value": turn["value"],
                "kept": turn["kept"],
            }
            for turn, known in zip(outcome.rounds, rest, strict=True)
        ],
        "selected": list(outcome.selected),
        "value": outcome.value,
        "stop": outcome.stop,
    }
