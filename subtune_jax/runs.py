"""One run: its pieces put together, from a setup and a plan to a trained state."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from subtune_jax import (
    augment,
    data,
    devices,
    loop,
    optimizer,
    setup,
    sparse,
    step,
    trees,
)
from subtune_jax import plan as plans
from subtune_jax.contracts import Selection
from subtune_jax.data import Examples
from subtune_jax.loop import Predictor, Trainer
from subtune_jax.optimizer import Optimizer
from subtune_jax.plan import Plan
from subtune_jax.setup import Setup
from subtune_jax.sparse import Flat
from subtune_jax.step import Fixed, Recipe, State

CACHE_BYTES = data.RESIDENT_BYTES  # of a trunk's output for the training examples


class Run(NamedTuple):
    """A run that is ready to take its first step.

    Attributes:
      plan: what moves.
      recipe: of the step.
      trainer: the compiled step.
      state: the first one, on the devices.
      enter: images -> examples as they enter block `recipe.start`.
      predictor: of logits, for examples that have entered.
    """

    plan: Plan
    recipe: Recipe
    trainer: Trainer
    state: State
    enter: Callable[[Examples], Examples]
    predictor: Predictor


def assemble(
    made: Setup,
    plan: Plan,
    chosen: Optimizer,
    steps: int,
    *,
    augmented: bool = True,
    values: Flat | None = None,
) -> Run:
    """A `Run` of `steps` steps.

    What lies below the first block that moves is computed once, when nothing random
    comes before it and its output fits in memory.

    Args:
      made: the setup.
      plan: what moves.
      chosen: the optimiser.
      steps: of the schedule.
      augmented: whether images are augmented.
      values: masters to start from instead of the plan's, for some of the leaves.
    """
    augmenting = made.augment if augmented else augment.Augment()
    start, enter = _entrance(made, plan, augmenting)
    recipe = plain_recipe(made)._replace(
        transform=chosen.transform(steps, made.backbone.blocks),
        start=start,
        training=plan.training,
        augment=augmenting,
        accumulate_steps=chosen.accumulate_steps,
        ema=chosen.ema,
        additive=plan.additive,
    )
    rows = setup.batch_rows(made, pieces=chosen.accumulate_steps)
    feed = data.training(enter(made.train), rows, made.settings["seed"], augmenting)
    masters = {**plan.values, **(values or {})}
    flat = _above(made, start)
    begin = step.start(recipe, flat, made.variables.stats, masters, plan.positions)
    trainer, state = loop.compile_training(
        made.devices, recipe, begin, plan.positions, feed
    )
    predict = loop.predictor(made.devices, recipe, setup.batch_rows(made))
    return Run(plan, recipe, trainer, state, enter, predict)


def logits(run: Run, state: State, examples: Examples) -> np.ndarray:
    """Logits `[N, C]` of images, by the averaged values where there are any."""
    return loop.predict(run.predictor, state, run.trainer.fixed, run.enter(examples))


def with_values(run: Run, values: Flat) -> Flat:
    """The partial leaves, host arrays, with `values` in their places."""
    leaves = devices.to_host(run.state.partial)
    return {
        path: np.asarray(sparse.put(leaf, run.plan.positions[path], values[path]))
        for path, leaf in leaves.items()
    }


def linear_probe(made: Setup) -> tuple[Run, State]:
    """A head trained alone on the frozen base, without augmentation."""
    settings = made.settings["optimizer"]
    chosen = optimizer.make("adam", learning_rate=settings["probe_learning_rate"])
    nothing = trees.map_leaves(lambda path, leaf: np.False_, made.variables.params)
    plan = plans.make(made.variables, made.backbone.blocks, Selection(nothing))
    steps = settings["probe_steps"]
    run = assemble(made, plan, chosen, steps, augmented=False)
    state, _ = loop.fit(run.trainer, run.state, 0, steps, lambda done, metrics: None)
    return run, state


def _entrance(
    made: Setup, plan: Plan, augmenting: augment.Augment
) -> tuple[str | None, Callable[[Examples], Examples]]:
    """The block that examples enter at, and how images become what enters there."""
    same = lambda examples: examples  # noqa: E731
    wanted = made.settings["trunk_cache"] and not augment.active(augmenting)
    if not wanted or plan.start == made.backbone.blocks[0]:
        return None, same
    run, state, fixed = _trunk(made, plan.start)

    def enter(examples: Examples) -> Examples:
        outputs = loop.predict(run, state, fixed, examples)
        return data.resident(outputs, examples.labels)

    first = made.train.read(np.zeros(1, int))
    one = enter(data.resident(first, made.train.labels[:1]))
    if one.inputs is None or one.inputs.nbytes * len(made.train.labels) > CACHE_BYTES:
        return None, same
    return plan.start, enter


def _trunk(made: Setup, stop: str) -> tuple[Predictor, State, Fixed]:
    """The base up to block `stop`, on the devices."""
    recipe = plain_recipe(made)
    flat = trees.flatten(made.variables.params)
    state, frozen = step.start(recipe, flat, made.variables.stats, {}, {})
    state, fixed = devices.replicate(made.devices, (state, Fixed(frozen, {}, {})))
    run = loop.predictor(made.devices, recipe, setup.batch_rows(made), stop=stop)
    return run, state, fixed


def plain_recipe(made: Setup) -> Recipe:
    """The recipe of the network as it is: no augmentation, all blocks in evaluation."""
    return Recipe(
        backbone=made.backbone,
        loss=made.task.loss,
        classes=len(made.task.classes),
        transform=made.optimizer.transform(1, made.backbone.blocks),
        dtype=setup.dtype(made),
    )


def _above(made: Setup, start: str | None) -> Flat:
    """The parameters of block `start` and all after it: no others are used."""
    order = made.backbone.blocks
    used = order if start is None else order[order.index(start) :]
    flat = trees.flatten(made.variables.params)
    return {path: leaf for path, leaf in flat.items() if path.split("/")[0] in used}
