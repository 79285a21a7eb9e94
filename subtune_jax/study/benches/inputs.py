"""How long training waits for data, with every augmentation on."""

import time
from typing import Any

from subtune_jax.data import augment, dataset
from subtune_jax.optim import partition
from subtune_jax.study import timing
from subtune_jax.training import assembly, evidence, loop
from subtune_jax.training.assembly import Run
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

AUGMENT = augment.make(crop=0.5, flip=True, colour=0.3, mixup=0.2, cutmix=1.0)
STEPS = 50  # a turn; a stream starts anew every turn, in a run once
LIMIT = 0.05


def run(made: Setup, repeats: int) -> dict[str, Any]:
    """Shares of the wall time spent waiting, by the config's own method.

    Returns:
      `steps` a turn; `share`: `resident`, the set on the device (left out where it
      is too large), and `streamed`, the same set read and sent image by image: the
      median, min and max over turns; `milliseconds` a step; `checks`.
    """
    made = made._replace(augment=AUGMENT)
    selection = made.selector.init(evidence.make(made))
    mode = made.settings["batch_norm"]
    chosen = partition.make(
        made.variables, made.backbone.blocks, selection, batch_norm=mode
    )
    sources = {"streamed": _streamed(made)}
    if made.train.inputs is not None:
        sources = {"resident": made.train, **sources}
    forms = {
        name: assembly.assemble(
            made._replace(train=train), chosen, made.optimizer, repeats * STEPS
        )
        for name, train in sources.items()
    }
    states = {name: ready.state for name, ready in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    shares: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats):
        for name, ready in forms.items():
            states[name], taken, waited = _turn(ready, states[name], turn * STEPS)
            seconds[name].append(taken)
            shares[name].append(waited / taken)
    share = {name: timing.spread(each) for name, each in shares.items()}
    return {
        "steps": STEPS,
        "share": share,
        "milliseconds": {
            name: timing.spread([1e3 * taken / STEPS for taken in each])
            for name, each in seconds.items()
        },
        "checks": [
            timing.check(f"{name}: share of time waited", each["median"], LIMIT)
            for name, each in share.items()
        ],
    }


def _turn(ready: Run, state: State, first: int) -> tuple[State, float, float]:
    """`STEPS` more steps; the state, the seconds and those spent waiting for data."""
    begin = time.perf_counter()
    state, waited = loop.fit(
        ready.trainer, state, first, first + STEPS, lambda done, metrics: None
    )
    return state, time.perf_counter() - begin, waited


def _streamed(made: Setup) -> dataset.Examples:
    settings = made.settings
    split = dataset.subset(
        made.task.train, settings["train_examples"], settings["seed"]
    )
    return dataset.examples(split, made.backbone.input_shape[0], limit=0)
