"""What a sparse step costs: forms of selection compared with full fine-tuning.

Elements are drawn at random, since their places change no cost; biases and LayerScale
ride along where GPS trains them. Everything is a ratio inside one run, by turns.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from subtune_jax import scores
from subtune_jax.core.method import Evidence, Selection
from subtune_jax.data import augment
from subtune_jax.methods import full, random
from subtune_jax.selection import masks, structured
from subtune_jax.study import step_runs, timing
from subtune_jax.training import evidence, results
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

KERNELS = r".*kernel"
TIME, SAVED, STATE = 0.70, 0.9, 1.05  # limits of a step of one input a neuron
FORMS: dict[str, dict[str, Any]] = {
    "gps_k1": step_runs.AS_GPS,
    "k1_no_bias": {"count": 1},
    "k4_no_bias": {"count": 4},
    "array_0.1_percent": {"scope": "array", "fraction": 0.001},
    "array_1_percent": {"scope": "array", "fraction": 0.01},
    "array_25_percent": {"scope": "array", "fraction": 0.25},
}
COLUMNS = 0.25  # of the neurons, whole; compared with a quarter of the elements


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Figures of a training step of each form.

    Returns:
      `forms`: name -> `trained` values, `milliseconds`, `flops`, `optimizer_bytes`,
      `index_bytes`, compiled `memory` and its `peak_bytes`. `ratios`: name -> `time`
      in that of `full` in the same turn, `flops`, and `saved`: the difference of peaks
      by 12 bytes for each value that full fine-tuning trains. `checks`.
    """
    setup = setup._replace(augment=augment.NONE)
    runs = {
        name: step_runs.assemble(
            setup, step_runs.plan_of(setup, selection), cached=False
        )
        for name, selection in _selections(evidence.make(setup)).items()
    }
    states: dict[str, State] = {}
    steps: dict[str, Callable[[], object]] = {
        name: step_runs.stepping(form, states, name) for name, form in runs.items()
    }
    seconds = timing.by_turns(steps, repeats)
    forms = {
        name: _figures(form, states[name], seconds[name]) for name, form in runs.items()
    }
    ratios = {
        name: _ratios(row, forms["full"])
        | {"time": timing.ratio(seconds[name], seconds["full"])}
        for name, row in forms.items()
    }
    checks = _checks(forms, ratios)
    return {"forms": forms, "ratios": ratios, "checks": checks}


def _selections(gathered: Evidence) -> dict[str, Selection]:
    selections = {"full": full.make().init(gathered)}
    for name, arguments in FORMS.items():
        selections[name] = random.make(**arguments).init(gathered)
    kernels = masks.find(gathered.params, KERNELS, gathered.blocks[-1:])
    columns = structured.columns(scores.random(kernels, 0), fraction=COLUMNS)
    mask = masks.fill(gathered.params, columns)
    return selections | {"columns_25_percent": Selection(mask)}


def _figures(form: Program, state: State, seconds: list[float]) -> dict[str, Any]:
    sizes = step_runs.sizes(form)
    new = sizes["output"] - sizes["alias"]
    positions = form.partition.positions.values()
    return {
        "trained": sum(np.size(value) for value in form.partition.values.values()),
        "milliseconds": {k: 1e3 * v for k, v in timing.spread(seconds).items()},
        "flops": form.flops,
        "optimizer_bytes": results.state_bytes(state),
        "index_bytes": sum(where.nbytes for where in positions),
        "memory": sizes,
        "peak_bytes": sizes["argument"] + sizes["temp"] + new,
    }


def _ratios(row: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    saved = whole["peak_bytes"] - row["peak_bytes"]
    return {
        "flops": row["flops"] / whole["flops"],
        "saved": saved / (12 * whole["trained"]),
    }


def _checks(forms: dict[str, Any], ratios: dict[str, Any]) -> list[dict[str, Any]]:
    gps, mine = forms["gps_k1"], ratios["gps_k1"]
    held = gps["optimizer_bytes"] / (8 * gps["trained"])
    kept = 1 - mine["saved"]  # of the gradients and moments of full fine-tuning
    whole, apart = (
        ratios[name]["time"]["median"]
        for name in ("columns_25_percent", "array_25_percent")
    )
    return [
        timing.check("K=1: time by full", mine["time"]["median"], TIME),
        timing.check("K=1: memory of 12 n that is not saved", kept, 1 - SAVED),
        timing.check("K=1: state by two moments", held, STATE),
        timing.check("25 %: whole neurons by as many elements", whole / apart, 1.0),
    ]
