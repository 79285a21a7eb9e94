"""The config's own method, compared with full fine-tuning: time, memory, the delta."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from subtune_jax import delta
from subtune_jax.data import augment
from subtune_jax.methods import full
from subtune_jax.optim import masked_updates
from subtune_jax.optim.partition import Partition
from subtune_jax.selection import masks
from subtune_jax.study import step_runs, timing
from subtune_jax.training import evidence, results, tuned
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

BOUND = 1.05  # of the bytes that two moments of the trained values take


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Figures of a step of each form, nothing augmented.

    Returns:
      `forms`: `method` and `full`, and `cached`: the method with the output of the
      trunk computed once, where it has such a trunk. Each has `trained` values,
      `milliseconds`, `flops`, `optimizer_bytes`, `index_bytes`, compiled `memory`
      and `delta_bytes`. `ratios`: the same of `method` and `cached`, in those of
      `full`. `updates`: see `compare_updates`; empty for a method that trains added
      arrays, which are in no mask. `checks`.
    """
    setup = setup._replace(augment=augment.NONE)
    plan = step_runs.plan_of(setup)
    everything = full.make().init(evidence.make(setup))
    forms = {
        "method": step_runs.assemble(setup, plan, cached=False),
        "full": step_runs.assemble(
            setup, step_runs.plan_of(setup, everything), cached=False
        ),
    }
    if setup.settings["trunk_cache"] and plan.start != setup.backbone.blocks[0]:
        forms["cached"] = step_runs.assemble(setup, plan, cached=True)
    states: dict[str, State] = {}
    steps = {
        name: step_runs.stepping(form, states, name) for name, form in forms.items()
    }
    seconds = timing.by_turns(steps, repeats)
    figures = {
        name: _figures(setup, form, states[name], seconds[name])
        for name, form in forms.items()
    }
    masked = plan.additive is None
    updates = compare_updates(setup, plan, repeats) if masked else {}
    return {
        "forms": figures,
        "ratios": {
            name: _ratios(figures[name], figures["full"])
            | {"time": timing.ratio(seconds[name], seconds["full"])}
            for name in forms
            if name != "full"
        },
        "updates": updates,
        "checks": _checks(setup, figures["method"], updates),
    }


def compare_updates(setup: Setup, plan: Partition, repeats: int) -> dict[str, Any]:
    """`masked` and `compact` around Adam, compared with Adam on all parameters.

    Returns:
      Name of the transform -> `state_bytes` without indices, `index_bytes`,
      `elements` that its state is for, `bytes_ratio` to two float32 moments of
      those, and `time`, of one jitted update in times of Adam's on everything.
    """
    params = setup.variables.params
    adam = optax.adamw(1e-3, weight_decay=0.1)
    reach = jax.tree.map(lambda leaf: np.bool_(np.any(leaf)), plan.mask)
    elements = {
        "adamw": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "masked": masks.count(params, reach),
        "compact": masks.count(params, plan.mask),
    }
    transforms = {
        "adamw": adam,
        "masked": masked_updates.masked(adam, plan.mask),
        "compact": masked_updates.compact(adam, plan.mask),
    }
    states: dict[str, Any] = {name: tx.init(params) for name, tx in transforms.items()}
    calls = {name: _call(tx, states[name], params) for name, tx in transforms.items()}
    seconds = timing.by_turns(calls, repeats)
    table = {}
    for name, state in states.items():
        index = _bytes(state.positions) if name == "compact" else 0
        held = _bytes(state) - index
        table[name] = {
            "state_bytes": held,
            "index_bytes": index,
            "elements": elements[name],
            "bytes_ratio": held / (2 * 4 * elements[name]),
            "time": timing.ratio(seconds[name], seconds["adamw"]),
        }
    return table


def _call(
    tx: optax.GradientTransformation, state: Any, params: Any
) -> Callable[[], Any]:
    grads = jax.tree.map(np.ones_like, params)
    compiled = jax.jit(tx.update).lower(grads, state, params).compile()
    arguments = jax.device_put((grads, state, params))
    return lambda: jax.block_until_ready(compiled(*arguments))


def _figures(
    setup: Setup, form: Program, state: State, seconds: list[float]
) -> dict[str, Any]:
    held = results.state_bytes(state)
    trained = sum(np.size(leaf) for leaf in form.partition.values.values())
    return {
        "trained": trained,
        "milliseconds": {k: 1e3 * v for k, v in timing.spread(seconds).items()},
        "flops": form.flops,
        "optimizer_bytes": held,
        "optimizer_bytes_ratio": held / (2 * 4 * trained),
        "index_bytes": _bytes(form.partition.positions),
        "memory": step_runs.sizes(form),
        "delta_bytes": _delta_bytes(setup, form, state),
    }


def _ratios(these: dict[str, Any], those: dict[str, Any]) -> dict[str, Any]:
    plain = ("trained", "flops", "optimizer_bytes", "delta_bytes")
    ratios = {key: these[key] / those[key] for key in plain}
    return ratios | {"temp": these["memory"]["temp"] / those["memory"]["temp"]}


def _delta_bytes(setup: Setup, form: Program, state: State) -> int:
    """Bytes of the delta after the steps that were timed, on disk."""
    after = tuned.variables(setup, form, state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "delta"
        delta.save(path, setup.base._asdict(), after._asdict())
        return results.folder_bytes(path)


def _checks(
    setup: Setup, figures: dict[str, Any], updates: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = [
        timing.check(f"{name}: state, by two moments", row["bytes_ratio"], BOUND)
        for name, row in updates.items()
        if name != "adamw"
    ]
    if setup.settings["optimizer"]["name"] in ("adam", "adamw"):
        held = figures["optimizer_bytes_ratio"]
        rows.append(timing.check("the step's state, by two moments", held, BOUND))
    return rows


def _bytes(tree: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))
