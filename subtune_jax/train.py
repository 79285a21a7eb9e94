"""Choose, fine-tune, evaluate, and save the delta.

    subtune train --config=configs/quickstart.py --workdir=runs/quickstart

Writes `result.json`, `metrics.jsonl`, TensorBoard events, `delta/`, `checkpoints/`,
`report.html` and `report.png`. The same command on the same workdir resumes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from subtune_jax import (
    checkpoint,
    commands,
    data,
    delta,
    devices,
    evidence,
    loop,
    metrics_log,
    outcome,
    report,
    runs,
    setup,
    workdir,
)
from subtune_jax import plan as plans
from subtune_jax.contracts import Variables
from subtune_jax.loop import NonFiniteLossError
from subtune_jax.runs import Run
from subtune_jax.settings import Settings
from subtune_jax.setup import Setup
from subtune_jax.step import State

Write = Callable[[dict[str, Any]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = commands.parser("train", "choose, fine-tune, evaluate and save the delta")
    return commands.run(parse, lambda s, given: run(s, given.workdir), argv)


def run(settings: Settings, folder: Path, _: argparse.Namespace | None = None) -> Path:
    """Runs or resumes the run of `folder`; the path of its `result.json`.

    Raises:
      ValueError: an input is wrong; nothing was written.
      NonFiniteLossError: training failed; the last checkpoint stays.
    """
    workdir.check(folder, settings)
    if (folder / "result.json").exists():
        return folder / "result.json"
    made = setup.prepare(settings)
    begin = time.perf_counter()
    selection = made.selector.init(evidence.make(made))
    plan = plans.make(
        made.variables,
        made.backbone.blocks,
        selection,
        batch_norm=settings["batch_norm"],
    )
    seconds = {"selection": time.perf_counter() - begin}
    workdir.claim(folder, settings)
    _say(f"{plan.counts['selected']:,} of {plan.counts['base']:,} weights selected")
    probe = _probe(made) if made.optimizer.probe_steps else None
    values = None if probe is None else devices.to_host(probe[1].values)
    ready = runs.assemble(
        made, plan, made.optimizer, settings["train_steps"], values=values
    )
    begin = time.perf_counter()
    state, waited = _train(made, ready, folder)
    seconds |= {"train": time.perf_counter() - begin, "wait": waited}
    return _finish(made, ready, state, probe, seconds, folder)


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def _probe(made: Setup) -> tuple[Run, State, float]:
    run, state = runs.linear_probe(made)
    metric = _metric(made, runs.logits(run, state, made.validation), made.validation)
    _say(f"linear probe: validation {made.task.metric_name} {metric:.4f}")
    return run, state, metric


def _metric(made: Setup, logits: np.ndarray, examples: data.Examples) -> float:
    return float(made.task.metric(logits, examples.labels))


def _train(made: Setup, ready: Run, folder: Path) -> tuple[State, float]:
    """Trains from the newest checkpoint, if any, to the last step."""
    settings, last = made.settings, made.settings["train_steps"]
    found = checkpoint.restore(folder / "checkpoints", _saved(ready.state))
    first, state = (
        (0, ready.state) if found is None else (found[0], _back(ready, *found))
    )
    entered = ready.enter(made.validation)
    schedule = made.optimizer.schedule(last)
    evals = _every(settings["eval_steps"], last)
    saves = _every(settings["save_steps"], last)
    with metrics_log.writing(folder, after=first if found else -1) as write:

        def log(done: int, metrics: dict[str, float]) -> None:
            rate = float(np.asarray(schedule(done - 1)))
            write({"step": done, "split": "train", **metrics, "learning_rate": rate})

        def pause(done: int, state: State) -> None:
            if done in evals:
                fixed = ready.trainer.fixed
                logits = loop.predict(ready.predictor, state, fixed, entered)
                _validate(made, logits, done, write)
            if done in saves:
                checkpoint.save(folder / "checkpoints", done, _finite(done, state))

        pauses = evals | saves
        return loop.fit(ready.trainer, state, first, last, log, pauses, pause)


def _every(steps: int, last: int) -> set[int]:
    return set(range(steps, last, steps) if steps else ()) | {last}


def _validate(made: Setup, logits: np.ndarray, done: int, write: Write) -> None:
    name, metric = made.task.metric_name, _metric(made, logits, made.validation)
    write({"step": done, "split": "validation", name: metric})
    _say(f"step {done}: validation {name} {metric:.4f}")


def _saved(state: State) -> Any:
    """What a checkpoint holds: all but the partial leaves, which `_back` rebuilds."""
    return devices.to_host(state._replace(partial={}))


def _finite(done: int, state: State) -> Any:
    saved = _saved(state)
    if not all(np.isfinite(value).all() for value in saved.values.values()):
        raise NonFiniteLossError(f"a trained value is not finite after step {done}")
    return saved


def _back(ready: Run, done: int, saved: State) -> State:
    """The state after `done` steps, on the devices."""
    _say(f"resuming after step {done}")
    partial = runs.with_values(ready, saved.values)
    return devices.replicate(ready.trainer.devices, saved._replace(partial=partial))


def _finish(
    made: Setup,
    ready: Run,
    state: State,
    probe: tuple[Run, State, float] | None,
    seconds: dict[str, float],
    folder: Path,
) -> Path:
    """Evaluates on test, once, and writes the delta, the report and the result."""
    _finite(made.settings["train_steps"], state)
    after = outcome.tuned(made, ready, state)
    meta = {key: made.settings[key] for key in ("task", "backbone", "method", "seed")}
    meta |= {"classes": list(made.task.classes)}
    base = {"params": made.base.params, "stats": made.base.stats}
    delta.save(
        folder / "delta", base, {"params": after.params, "stats": after.stats}, meta
    )
    test = data.examples(made.task.test, made.backbone.input_shape[0])
    logits = runs.logits(ready, state, test)
    validation = _metric(
        made, runs.logits(ready, state, made.validation), made.validation
    )
    metrics: dict[str, Any] = {"name": made.task.metric_name, "validation": validation}
    metrics["test"] = _metric(made, logits, test)
    if made.task.also:
        metrics["also"] = outcome.also(made, logits, test.labels)
    result = _result(made, ready, state, after, metrics, seconds, folder)
    if probe is not None:
        score = _metric(made, runs.logits(probe[0], probe[1], test), test)
        result["linear_probe"] = {"validation": probe[2], "test": score}
        _say(f"linear probe: test {made.task.metric_name} {score:.4f}")
    _say(f"fine-tuned:   test {made.task.metric_name} {metrics['test']:.4f}")
    if jax.process_index() == 0:
        shown = made, logits, test.labels, test
        report.write(
            folder,
            result,
            metrics_log.read(folder),
            outcome.shares(made, ready),
            outcome.confusion(logits, test.labels, len(made.task.classes)),
            made.task.classes,
            [] if made.task.dense else outcome.mistakes(*shown),
            outcome.worst(*shown) if made.task.dense else (),
        )
    return workdir.write_json(folder / "result.json", result)


def _result(
    made: Setup, ready: Run, state: State, after: Variables,
    metrics: dict[str, Any], seconds: dict[str, float], folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """The content of `result.json`; see the README for what each key means."""
    settings = made.settings
    return {
        "task": settings["task"]["name"],
        "backbone": settings["backbone"]["name"],
        "method": settings["method"]["name"],
        "seed": settings["seed"],
        "devices": made.devices.size,
        "parallel": made.devices.mode,
        "trainable": ready.plan.counts,
        "metrics": metrics,
        "cost": {
            "train_steps": settings["train_steps"],
            "selection_seconds": seconds["selection"],
            "train_seconds": seconds["train"],
            "data_wait_seconds": seconds["wait"],
            "step_flops": ready.trainer.flops,
            "optimizer_bytes": outcome.state_bytes(state),
            "delta_bytes": outcome.folder_bytes(folder / "delta"),
        },
        "frozen_unchanged": outcome.frozen_unchanged(made, ready, state, after),
        "base_fingerprint": delta.fingerprint(made.base._asdict()),
        "config": settings,
        "versions": outcome.versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
