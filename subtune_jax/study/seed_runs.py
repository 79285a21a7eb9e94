"""N seeds of one run by one program: how stable is a method?

    subtune seeds --config=FILE --workdir=DIR --count=5 [--how=vmap|turns]
        [--export=results/NAME.json]

A seed decides the new head, the order of the data, a subset, dropout, and what a method
draws. Each run has a folder of its own, as `train` writes it. Writes `seeds.json`: the
test metric of every seed, mean, deviation and worst, the share of runs that failed (no
better than one guess for all), and the mean drift of the features where it was asked
for.

By turns, one run follows the other and only the first compiles. With vmap each step is
taken by all seeds at once, which is what an accelerator likes and a CPU does not: its
batched products are slower than one after the other. All states must fit in memory.
"""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from subtune_jax.core import devices, process
from subtune_jax.data import batches
from subtune_jax.study import summaries
from subtune_jax.subtuning import evaluator
from subtune_jax.training import results, run, step, workdir
from subtune_jax.training.results import Begun, Fitted, NonFiniteLossError
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import batch_rows
from subtune_jax.training.step import Fixed, State

HOW = ("auto", "vmap", "turns")


def train(settings: Settings, folder: Path, count: int, how: str = "auto") -> Path:
    """Runs or resumes all seeds; the path of `seeds.json`.

    Args:
      settings: complete; the first seed is its `seed`.
      folder: the workdir.
      count: of seeds, 1 or more.
      how: one of `HOW`: `vmap`, `turns`, or `auto`: `turns` on a CPU.

    Raises:
      ValueError: an input is wrong.
      NonFiniteLossError: training of a seed failed.
    """
    if count < 1:
        raise ValueError(f"--count={count}; it must be 1 or more")
    if how == "auto":
        how = "turns" if jax.default_backend() == "cpu" else "vmap"
    workdir.check(folder, settings)
    workdir.claim(folder, settings)
    first = settings["seed"]
    jobs = [
        ({**settings, "seed": seed}, folder / f"seed{seed}")
        for seed in range(first, first + count)
    ]
    begin = time.perf_counter()
    paths = [own / "result.json" for _, own in jobs]
    if not all(path.exists() for path in paths):
        {"turns": _by_turns, "vmap": _at_once}[how](jobs)
    content = {
        **summary([json.loads(path.read_text()) for path in paths]),
        "how": how,
        "seconds": time.perf_counter() - begin,
        "config": settings,
        "versions": results.versions(),
    }
    process.say(
        "test {metric} {mean:.4f}, deviation {std:.4f}, worst {worst:.4f}".format(
            **content
        )
    )
    return workdir.write_json(folder / "seeds.json", content)


def summary(seed_results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Metric, seeds, `values` with mean, deviation and worst, failures and drift."""
    metrics = [result["metrics"] for result in seed_results]
    values = [metric["test"] for metric in metrics]
    standings = [summaries.standing(metric) for metric in metrics]
    return {
        "metric": metrics[0]["name"],
        "seeds": [result["seed"] for result in seed_results],
        **evaluator.summary(values),
        "worst": min(values),
        **{key: statistics.fmean(s[key] for s in standings) for key in standings[0]},
    }


def _by_turns(jobs: Sequence[tuple[Settings, Path]]) -> None:
    programs: dict[str, Any] = {}
    for settings, folder in jobs:
        run.run(settings, folder, programs)


def _at_once(jobs: Sequence[tuple[Settings, Path]]) -> None:
    """Trains all seeds together, and writes the result of each."""
    ready: list[Begun] = []
    for settings, folder in jobs:
        workdir.check(folder, settings)
        store = ready[0].program.store if ready else None
        ready.append(run.begin(settings, folder, store))
    first = ready[0]
    if any(seed.program.shapes != first.program.shapes for seed in ready):
        raise ValueError("the seeds select arrays of other sizes; give --how=turns")
    begin = time.perf_counter()
    states = _last_states(ready)
    share = (time.perf_counter() - begin) / len(ready)
    for seed, state, (_, folder) in zip(ready, states, jobs, strict=True):
        results.write(seed, Fitted(state, share, 0.0), folder, pictures=False)


def _last_states(ready: Sequence[Begun]) -> list[State]:
    """The state of every seed after training."""
    first = ready[0]
    where = first.program.devices
    states = [devices.to_host(seed.program.state) for seed in ready]
    own = [devices.to_host(_own(seed.program.fixed)) for seed in ready]
    number = states[0].step  # the same for all: a step's branches are taken by all
    stacked, fixed = devices.replicate(
        where,
        (
            _stack([_stepless(state) for state in states]),
            (first.program.fixed.frozen, _stack(own), number),
        ),
    )
    train_step = step.make_train(first.program.recipe)

    def step_of_all(stacked: Any, fixed: Any, piece: Any) -> Any:
        frozen, own, number = fixed

        def step_of_one(state: Any, mine: Any, part: Any) -> Any:
            state = state._replace(step=number)
            fixed = Fixed(frozen, mine[0], {}, mine[1])
            after, metrics = train_step(state, fixed, part)
            return _stepless(after), metrics

        return jax.vmap(step_of_one, in_axes=(0, 0, 1))(stacked, own, piece)

    function = devices.parallel(where, step_of_all, donate=True)
    for done, piece in enumerate(_pieces(ready), 1):
        stacked, metrics = function(stacked, fixed, devices.spread(where, piece))
        if not np.isfinite(np.asarray(metrics["loss"])).all():
            raise NonFiniteLossError(f"the loss of step {done} is not finite")
        fixed = (*fixed[:2], devices.replicate(where, np.int32(done)))
    last = devices.to_host(stacked)
    after = np.int32(first.setup.settings["train_steps"])
    return [
        devices.replicate(where, _part(last, number)._replace(step=after))
        for number in range(len(ready))
    ]


def _stepless(state: Any) -> Any:
    """The state but for its step, which is shared."""
    return state._replace(step=None)


def _own(fixed: Fixed) -> tuple[Any, Any]:
    return fixed.positions, fixed.key


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _part(stacked: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _pieces(ready: Sequence[Begun]) -> Iterator[dict[str, np.ndarray]]:
    """Pieces with a second axis of seeds, inputs sent along and cut alike."""
    steps = ready[0].setup.settings["train_steps"]
    feeds = []
    for seed in ready:
        examples = seed.program.examples._replace(inputs=None)
        rows = batch_rows(seed.setup, pieces=seed.program.recipe.accumulate_steps)
        feed = batches.training(
            examples, rows, seed.setup.settings["seed"], seed.program.recipe.augment
        )
        feeds.append(feed.pieces(0, steps))
    for pieces in zip(*feeds, strict=True):
        yield {name: _joined([p[name] for p in pieces]) for name in pieces[0]}


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stacked on axis 1; texts of one seed are padded to those of the others."""
    if arrays[0].ndim == 3 and len({array.shape for array in arrays}) > 1:
        longest = max(array.shape[1] for array in arrays)
        arrays = [
            np.pad(array, ((0, 0), (0, longest - array.shape[1]), (0, 0)))
            for array in arrays
        ]
    return np.stack(arrays, axis=1)
