"""One run: set up, select, partition, build, fit, evaluate, write.

Writes `result.json`, `metrics.jsonl`, TensorBoard events, `delta/`, `checkpoints/`,
`report.html` and `report.png`. The same settings on the same folder resume.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from subtune_jax.core import devices, trees
from subtune_jax.core.method import Selection, hold
from subtune_jax.core.process import say
from subtune_jax.core.program_store import Store
from subtune_jax.optim import optimizer, partition
from subtune_jax.training import checkpoint, evidence, results, workdir
from subtune_jax.training.program import Program, build, logits
from subtune_jax.training.results import Begun, Fitted, LinearProbe, NonFiniteLossError
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup, prepare
from subtune_jax.training.step import State

Watch = Callable[[int, State, dict[str, Any]], None]


def run(
    settings: Settings, folder: Path, programs: dict[str, Store] | None = None
) -> Path:
    """Runs or resumes the run of `folder`; the path of its `result.json`.

    Args:
      settings: complete.
      folder: of the run.
      programs: of a comparison: holds the programs of the latest run and is changed in
        place: a run that differs in its seed alone compiles nothing. No report is
        written unless `settings` say so.

    Raises:
      ValueError: an input is wrong; nothing was written.
      NonFiniteLossError: training failed; the last checkpoint stays.
    """
    workdir.check(folder, settings)
    if (folder / "result.json").exists():
        return folder / "result.json"
    store, seedless = None, json.dumps({**settings, "seed": None})
    if programs is not None:
        store = programs.get(seedless)
    begun = begin(settings, folder, store)
    if programs is not None:
        programs.clear()
        programs[seedless] = begun.program.store
    fitted = fit(begun.program, settings["train_steps"], begun.setup, folder)
    pictures = settings["report"]
    if pictures is None:
        pictures = programs is None
    return results.write(begun, fitted, folder, pictures=pictures)


def begin(settings: Settings, folder: Path, store: Store | None = None) -> Begun:
    """A run before its first step; claims `folder`.

    Args:
      settings: complete.
      folder: of the run.
      store: of a run of the same settings but the seed, whose programs are used again.

    Raises:
      ValueError: an input is wrong; nothing was written.
    """
    setup = prepare(settings)
    start = time.perf_counter()
    selection = setup.selector.init(evidence.make(setup))
    parts = partition.make(
        setup.variables,
        setup.backbone.blocks,
        selection,
        batch_norm=settings["batch_norm"],
        moves=setup.selector.update is not hold,
    )
    selection_seconds = time.perf_counter() - start
    workdir.claim(folder, settings)
    selected, size = parts.counts["selected"], parts.counts["base"]
    say(f"{selected:,} of {size:,} weights selected")
    probe, values = None, None
    if setup.optimizer.probe_steps:
        probe, held = linear_probe(setup), setup.validation
        guesses = logits(probe.program, probe.state, held)
        metric = float(setup.task.metric(guesses, held.labels))
        say(f"linear probe: validation {setup.task.metric_name} {metric:.4f}")
        probe = probe._replace(validation=metric)
        values = devices.to_host(probe.state.values)
    program = build(
        setup,
        parts,
        setup.optimizer,
        settings["train_steps"],
        values=values,
        selector=setup.selector,
        store=store,
    )
    return Begun(setup, program, probe, selection_seconds)


def linear_probe(setup: Setup, build: Callable[..., Program] = build) -> LinearProbe:
    """A head trained alone on the frozen base, without augmentation.

    Args:
      setup: of the run.
      build: makes its program, as `program.build` does.
    """
    settings, params = setup.settings["optimizer"], setup.variables.params
    adam = optimizer.make("adam", learning_rate=settings["probe_learning_rate"])
    nothing = Selection(trees.map_leaves(lambda path, leaf: np.False_, params))
    parts = partition.make(setup.variables, setup.backbone.blocks, nothing)
    program = build(setup, parts, adam, settings["probe_steps"], augmented=False)
    return LinearProbe(program, fit(program, settings["probe_steps"]).state)


def fit(
    program: Program,
    last: int,
    setup: Setup | None = None,
    folder: Path | None = None,
    *,
    first: int = 0,
    state: State | None = None,
    watch: Watch | None = None,
    finite: bool = True,
) -> Fitted:
    """Trains to step `last`; in a folder from its newest checkpoint, if there is any.

    With a folder every step is logged, and as often as the settings say there is a
    validation and a checkpoint. Metrics of a step are read while the devices work on
    the next one; with no folder and `finite=False` they are not read.

    Args:
      program: what is trained.
      last: steps done at the end.
      setup: of the run whose `folder` this is.
      folder: that is written to; None: nothing is.
      first: steps done before.
      state: after `first` steps; None for the program's. Its buffers are given away.
      finite: whether a loss that is not finite is refused.
      watch: called with (steps done, state, metrics) after every step, for those who
        look into a run; it may read the state, not keep it.

    Raises:
      NonFiniteLossError: the loss of a step, or a trained value, is not finite.
    """
    if (setup is None) != (folder is None) or (folder and (first or state)):
        raise ValueError("fit takes a setup with its folder, or first and state")
    state = program.state if state is None else state
    evals, saves, pending, metric = {last}, set(), None, None
    write, schedule = None, None  # of a folder
    start, wait_seconds = time.perf_counter(), 0.0
    with contextlib.ExitStack() as stack:
        if setup is not None and folder is not None:
            first, state = _resumed(program, state, folder / "checkpoints")
            log = workdir.logging(folder, after=first or -1)
            write, schedule = stack.enter_context(log), setup.optimizer.schedule(last)
            evals = _every(setup.settings["eval_steps"], last)
            if setup.settings["save_steps"]:
                saves = _every(setup.settings["save_steps"], last)

        def read(done: int, metrics: dict[str, Any]) -> None:
            numbers = {name: float(value) for name, value in metrics.items()}
            if finite and not np.isfinite(numbers["loss"]):
                raise NonFiniteLossError(
                    f"the loss of step {done} is {numbers['loss']}"
                )
            if write is not None and schedule is not None:
                rate = float(np.asarray(schedule(done - 1)))
                row = {"step": done, "split": "train", **numbers}
                write({**row, "learning_rate": rate})

        pieces = program.feed.pieces(first, last)
        for done in range(first + 1, last + 1):
            before = time.perf_counter()
            piece = devices.spread(program.devices, next(pieces))
            wait_seconds += time.perf_counter() - before
            state, metrics = program.step(state, program.fixed, piece)
            if pending is not None:
                read(*pending)
            pending = (done, metrics) if finite or write else None
            if pending is not None and (done in evals or done in saves):
                read(*pending)
                pending = None
            if watch is not None:
                watch(done, state, metrics)
            if setup is not None and write and done in evals:
                guesses = logits(program, state, setup.validation)
                metric = float(setup.task.metric(guesses, setup.validation.labels))
                name = setup.task.metric_name
                write({"step": done, "split": "validation", name: metric})
                say(f"step {done}: validation {name} {metric:.4f}")
            if folder is not None and done in saves:
                results.refuse_not_finite(state, done)
                checkpoint.save(folder / "checkpoints", done, _saved(state))
    jax.block_until_ready(state)
    return Fitted(state, time.perf_counter() - start, wait_seconds, metric)


def _every(steps: int, last: int) -> set[int]:
    return {last, *range(steps, last, steps)} if steps else {last}


def _resumed(program: Program, state: State, folder: Path) -> tuple[int, State]:
    """Steps done and state of the newest checkpoint; 0 and `state` without any."""
    newest = checkpoint.restore(folder, _saved(state)) if folder.is_dir() else None
    if newest is None:
        return 0, state
    done, saved = newest
    say(f"resuming after step {done}")
    positions = program.partition.positions
    leaves = devices.to_host({path: state.partial[path] for path in positions})
    partial = {
        path: np.asarray(trees.put(leaves[path], where, saved.values[path]))
        for path, where in positions.items()
    }
    saved = saved._replace(partial={**partial, **saved.partial})
    return done, devices.replicate(program.devices, saved)


def _saved(state: State) -> Any:
    """What a checkpoint holds: all but the partial leaves, which can be rebuilt.

    Where positions move, what was selected once may differ from the base: it is held.
    """
    places = {} if state.moving is None else state.moving.base
    partial = {path: state.partial[path] for path in places}
    return devices.to_host(state._replace(partial=partial))
