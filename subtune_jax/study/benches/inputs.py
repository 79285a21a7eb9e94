"""How long training waits for data, with every augmentation on."""

from typing import Any

from subtune_jax.data import augment, dataset
from subtune_jax.study import step_runs, timing
from subtune_jax.training import program
from subtune_jax.training.program import Program
from subtune_jax.training.run import fit
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

AUGMENT = augment.make(crop=0.5, flip=True, colour=0.3, mixup=0.2, cutmix=1.0)
STEPS = 50  # a turn; a stream starts anew every turn, in a run once
LIMIT = 0.05


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Shares of the wall time spent waiting, by the config's own method.

    Returns:
      `steps` a turn; `share`: `resident`, the set on the device (left out where it
      is too large), and `streamed`, the same set read and sent image by image: the
      median, min and max over turns; `milliseconds` a step; `checks`.
    """
    setup = setup._replace(augment=AUGMENT)
    plan = step_runs.plan_of(setup)
    sources = {"streamed": _streamed(setup)}
    if setup.train.inputs is not None:
        sources = {"resident": setup.train, **sources}
    forms = {
        name: program.build(
            setup._replace(train=train), plan, setup.optimizer, repeats * STEPS
        )
        for name, train in sources.items()
    }
    states = {name: form.state for name, form in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    shares: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats):
        for name, form in forms.items():
            states[name], taken, waited = _turn(form, states[name], turn * STEPS)
            seconds[name].append(taken)
            shares[name].append(waited / taken)
    share = {name: timing.spread(turns) for name, turns in shares.items()}
    return {
        "steps": STEPS,
        "share": share,
        "milliseconds": {
            name: timing.spread([1e3 * taken / STEPS for taken in turns])
            for name, turns in seconds.items()
        },
        "checks": [
            timing.check(f"{name}: share of time waited", spread["median"], LIMIT)
            for name, spread in share.items()
        ],
    }


def _turn(form: Program, state: State, first: int) -> tuple[State, float, float]:
    """`STEPS` more steps; the state, the seconds and those spent waiting for data."""
    fitted = fit(form, first + STEPS, first=first, state=state)
    return fitted.state, fitted.seconds, fitted.wait_seconds


def _streamed(setup: Setup) -> dataset.Examples:
    settings = setup.settings
    split = dataset.subset(
        setup.task.train, settings["train_examples"], settings["seed"]
    )
    return dataset.examples(split, setup.backbone.input_shape[0], limit=0)
