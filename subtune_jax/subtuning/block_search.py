"""Greedy SubTuning: which blocks should be trained? Then trains them, and what to beat.

    subtune search --config=configs/subtuning_elpv.py --workdir=runs/search

Writes `search.json` and `search.png`, and a journal: the same command on the same
workdir resumes and repeats no finished trial. Candidates are valued on folds or on the
validation split; the test split is read once, at the end, for the final trainings.
`subtune train` makes a delta of what was selected, with
`--config.method.name=blocks --config.method.names="('block03','block09')"`.

Source: Kaplun et al., arXiv:2302.06354; see `greedy` for the rules.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from subtune_jax.core import process, trees
from subtune_jax.report import searches
from subtune_jax.selection import masks
from subtune_jax.subtuning import (
    baselines,
    cost_model,
    evaluator,
    final_training,
    greedy,
    journal,
    trials,
)
from subtune_jax.subtuning.candidates import Set
from subtune_jax.subtuning.evaluator import Evaluator
from subtune_jax.subtuning.greedy import GreedyOptions, SearchResult
from subtune_jax.training import setup, workdir
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup


def run(settings: Settings, folder: Path) -> Path:
    """Runs or resumes the search of `folder`; the path of its `search.json`.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    options = greedy.make(**settings["greedy"])
    final_options = baselines.make(**settings["baselines"])
    trial_options = trials.make(**settings["trials"])
    workdir.check(folder, settings)
    path = folder / "search.json"
    if path.exists():
        return path
    prepared = setup.prepare(settings)
    items, record = choices(prepared, options), journal.read(folder)
    testbed = trials.prepare(prepared, trial_options, folder)
    candidate = functools.partial(trials.candidate, testbed)
    cost = cost_model.cost_function(prepared, lambda names: candidate(names).trained)
    greedy.check(options, cost)
    workdir.claim(folder, settings)
    say = process.latest()
    evaluation = Evaluator(testbed, record, trial_options, candidate, say)
    rows: list[dict[Set, dict[str, Any]]] = []

    def values(sets: Sequence[Set]) -> Mapping[Set, float]:
        known = evaluator.values(evaluation, sets)
        rows.append({names: evaluator.row(evaluation, names) for names in sets})
        return known

    result = greedy.search(items, values, options, cost)
    content = evaluator.about(prepared, "greedy") | {"items": items}
    content |= _report(result, options, rows)
    content["cost"] = evaluator.cost(record)
    if final_options.repeats:
        blocks = trials.blocks(prepared)
        plan = baselines.plan(testbed, final_options.rows, result.selected, blocks)
        tested = final_training.run(testbed, record, plan, final_options, say)
        content["final"] = {"split": "test", "rows": tested}
    workdir.write_json(path, content)
    if jax.process_index() == 0:
        (folder / "search.png").write_bytes(searches.search(content))
    return path


def choices(setup: Setup, options: GreedyOptions) -> list[str]:
    """The blocks, or the arrays, to choose among, in the order of the network.

    Raises:
      ValueError: `among` matches none.
    """
    blocks = trials.blocks(setup)
    if options.granularity == "blocks":
        known = {block: 0 for block in blocks}
    else:
        flat = trees.flatten(setup.base.params)
        owner = {path: blocks.index(path.split("/")[0]) for path in flat}
        known = dict(sorted(owner.items(), key=lambda item: item[1]))
    matching = masks.find(known, options.among)
    return [name for name in known if name in matching]


def _report(
    result: SearchResult, options: GreedyOptions, rows: list[dict[Set, dict[str, Any]]]
) -> dict[str, Any]:
    """The result as JSON, each set with what is on record of it."""
    first, *rest = rows
    return {
        "direction": options.direction,
        "rule": options.rule,
        "epsilon": options.epsilon,
        "start": first[result.start],
        "rounds": [
            {
                "candidates": list(of_round.values()),
                "chosen": list(turn["chosen"]),
                "value": turn["value"],
                "kept": turn["kept"],
            }
            for turn, of_round in zip(result.rounds, rest, strict=True)
        ],
        "selected": list(result.selected),
        "value": result.value,
        "stop": result.stop,
    }
