"""Choose, fine-tune, evaluate, and save the delta.

    subtune train --config=configs/quickstart.py --workdir=runs/quickstart

Writes `result.json`, `metrics.jsonl`, TensorBoard events, `delta/`, `checkpoints/`,
`report.html` and `report.png`. The same command on the same workdir resumes.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax.core import devices, method, progress
from subtune_jax.optim import partition
from subtune_jax.training import (
    assembly,
    checkpoint,
    evidence,
    finish,
    loop,
    metrics_log,
    setup,
    workdir,
)
from subtune_jax.training.assembly import Run
from subtune_jax.training.finish import Probed, Ready
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

Write = Callable[[dict[str, Any]], None]


def run(
    settings: Settings, folder: Path, programs: dict[str, Run] | None = None
) -> Path:
    """Runs or resumes the run of `folder`; the path of its `result.json`.

    Args:
      settings: complete.
      folder: of the run.
      programs: of a comparison: holds the latest run and is changed in place: a run
        that differs from it in its seed alone compiles nothing. No report is written
        unless `settings` say so.

    Raises:
      ValueError: an input is wrong; nothing was written.
      NonFiniteLossError: training failed; the last checkpoint stays.
    """
    workdir.check(folder, settings)
    if (folder / "result.json").exists():
        return folder / "result.json"
    found = ready(settings, folder, _like(settings, programs))
    if programs is not None:
        programs.clear()
        programs[_seedless(settings)] = found.run
    begin = time.perf_counter()
    state, waited, validation = _train(found.made, found.run, folder)
    seconds = {"train": time.perf_counter() - begin, "wait": waited}
    asked = settings["report"]
    pictures = programs is None if asked is None else asked
    return finish.write(
        found, state, seconds, folder, pictures=pictures, validation=validation
    )


def ready(settings: Settings, folder: Path, like: Run | None = None) -> Ready:
    """A run before its first step; claims `folder`.

    Args:
      settings: complete.
      folder: of the run.
      like: a run of the same settings but the seed, whose programs are used again.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    made = setup.prepare(settings)
    begin = time.perf_counter()
    selection = made.selector.init(evidence.make(made))
    plan = partition.make(
        made.variables,
        made.backbone.blocks,
        selection,
        batch_norm=settings["batch_norm"],
        moves=made.selector.update is not method.hold,
    )
    spent = time.perf_counter() - begin
    workdir.claim(folder, settings)
    selected, size = plan.counts["selected"], plan.counts["base"]
    progress.say(f"{selected:,} of {size:,} weights selected")
    probe = _probe(made) if made.optimizer.probe_steps else None
    run = assembly.assemble(
        made,
        plan,
        made.optimizer,
        settings["train_steps"],
        values=None if probe is None else devices.to_host(probe.state.values),
        selector=made.selector,
        like=like,
    )
    return Ready(made, run, probe, spent)


def _like(settings: Settings, programs: dict[str, Run] | None) -> Run | None:
    return None if programs is None else programs.get(_seedless(settings))


def _seedless(settings: Settings) -> str:
    return json.dumps({**settings, "seed": None})


def _probe(made: Setup) -> Probed:
    run, state = assembly.linear_probe(made)
    seen = made.validation
    metric = finish.metric(made, assembly.logits(run, state, seen), seen)
    progress.say(f"linear probe: validation {made.task.metric_name} {metric:.4f}")
    return Probed(run, state, metric)


def _train(made: Setup, ready: Run, folder: Path) -> tuple[State, float, float | None]:
    """Trains from the newest checkpoint, if any, to the last step.

    Returns:
      The last state, seconds waited for data, and the last metric on validation; None
      if no step was left.
    """
    settings, last = made.settings, made.settings["train_steps"]
    found = checkpoint.restore(folder / "checkpoints", _saved(ready.state))
    first, state = (
        (0, ready.state) if found is None else (found[0], _back(ready, *found))
    )
    entered = ready.enter(made.validation)
    schedule = made.optimizer.schedule(last)
    evals = _every(settings["eval_steps"], last)
    often = settings["save_steps"]
    saves = _every(often, last) if often else set()
    metrics: list[float] = []
    with metrics_log.writing(folder, after=first if found else -1) as write:

        def log(done: int, seen: dict[str, float]) -> None:
            rate = float(np.asarray(schedule(done - 1)))
            write({"step": done, "split": "train", **seen, "learning_rate": rate})

        def pause(done: int, state: State) -> None:
            if done in evals:
                fixed = ready.trainer.fixed
                logits = loop.predict(ready.predictor, state, fixed, entered)
                metrics.append(_validate(made, logits, done, write))
            if done in saves:
                finish.refuse_not_finite(state, done)
                checkpoint.save(folder / "checkpoints", done, _saved(state))

        pauses = evals | saves
        state, waited = loop.fit(ready.trainer, state, first, last, log, pauses, pause)
    return state, waited, metrics[-1] if metrics else None


def _every(steps: int, last: int) -> set[int]:
    return set(range(steps, last, steps) if steps else ()) | {last}


def _validate(made: Setup, logits: np.ndarray, done: int, write: Write) -> float:
    name, metric = made.task.metric_name, finish.metric(made, logits, made.validation)
    write({"step": done, "split": "validation", name: metric})
    progress.say(f"step {done}: validation {name} {metric:.4f}")
    return metric


def _saved(state: State) -> Any:
    """What a checkpoint holds: all but the partial leaves, which `_back` rebuilds.

    Where positions move, what was selected once may differ from the base: it is held.
    """
    places = {} if state.moving is None else state.moving.base
    partial = {path: state.partial[path] for path in places}
    return devices.to_host(state._replace(partial=partial))


def _back(ready: Run, done: int, saved: State) -> State:
    """The state after `done` steps, on the devices."""
    progress.say(f"resuming after step {done}")
    still = assembly.with_values(ready, saved.values)
    partial = {**still, **saved.partial}
    return devices.replicate(ready.trainer.devices, saved._replace(partial=partial))
