"""How long training waits for data, with every augmentation on."""

import time
from typing import Any

from subtune_jax import augment, data, loop, measure, plan, runs, setup
from subtune_jax.runs import Run
from subtune_jax.setup import Setup

AUGMENT = augment.make(crop=0.5, flip=True, colour=0.3, mixup=0.2, cutmix=1.0)
STEPS = 20  # a turn; streaming starts anew every turn
LIMIT = 0.05


def run(made: Setup, repeats: int) -> dict[str, Any]:
    """Shares of the wall time spent waiting, by the config's own method.

    Returns:
      `steps` a turn; `share`: `resident`, the set on the device (left out where it
      is too large), and `streamed`, the same set read and sent image by image: the
      median, min and max over turns; `milliseconds` a step; `checks`.
    """
    made = made._replace(augment=AUGMENT)
    selection = made.selector.init(setup.evidence(made))
    mode = made.settings["batch_norm"]
    chosen = plan.make(made.variables, made.backbone.blocks, selection, batch_norm=mode)
    sources = {"streamed": _streamed(made)}
    if made.train.inputs is not None:
        sources = {"resident": made.train, **sources}
    steps = (repeats + 1) * STEPS
    waiting = {
        name: Waiting(
            runs.assemble(made._replace(train=train), chosen, made.optimizer, steps)
        )
        for name, train in sources.items()
    }
    for turn in range(repeats + 1):
        for each in waiting.values():
            each.turn(counted=turn > 0)
    share = {name: measure.spread(each.shares) for name, each in waiting.items()}
    return {
        "steps": STEPS,
        "share": share,
        "milliseconds": {
            name: measure.spread([1e3 * s / STEPS for s in each.seconds])
            for name, each in waiting.items()
        },
        "checks": [
            measure.check(f"{name}: share of time waited", each["median"], LIMIT)
            for name, each in share.items()
        ],
    }


class Waiting:
    """A run that goes on from turn to turn, and how long it waited in each."""

    def __init__(self, ready: Run):
        """Gives away the first state of `ready`."""
        self.trainer, self.state, self.done = ready.trainer, ready.state, 0
        self.shares: list[float] = []
        self.seconds: list[float] = []

    def turn(self, *, counted: bool) -> None:
        """Takes `STEPS` steps."""
        begin, last = time.perf_counter(), self.done + STEPS
        self.state, waited = loop.fit(
            self.trainer, self.state, self.done, last, lambda done, metrics: None
        )
        seconds, self.done = time.perf_counter() - begin, last
        if counted:
            self.seconds.append(seconds)
            self.shares.append(waited / seconds)


def _streamed(made: Setup) -> data.Examples:
    settings = made.settings
    split = data.subset(made.task.train, settings["train_examples"], settings["seed"])
    return data.examples(split, made.backbone.input_shape[0], limit=0)
