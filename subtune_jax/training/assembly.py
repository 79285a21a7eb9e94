"""One run: its pieces put together, from a setup and a plan to a trained state."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, elements, trees
from subtune_jax.core.elements import Flat
from subtune_jax.core.method import Selection, Selector
from subtune_jax.data import augment, batches, dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import dynamic_mask, mask_rule, optimizer, partition
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.optim.partition import Plan
from subtune_jax.training import loop, loss, setup, step
from subtune_jax.training.loop import Predictor, Trainer
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import Fixed, Recipe, State

CACHE_BYTES = dataset.RESIDENT_BYTES  # of a trunk's output for the training examples


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
    selector: Selector | None = None,
    like: Run | None = None,
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
      selector: the method, if it does anything during training.
      like: a run that differs in its seed alone: its programs are used again, if they
        fit, and what lies below the first block that moves is entered by it.

    Raises:
      ValueError: the optimiser cannot do what the method asks for.
    """
    augmenting = made.augment if augmented else augment.Augment()
    if like is not None and like.plan.start != plan.start:
        like = None
    start, enter = (
        _entrance(made, plan, augmenting)
        if like is None
        else (like.recipe.start, like.enter)
    )
    masters = {**plan.values, **(values or {})}
    flat = _above(made, start)
    rule = mask_rule.make(selector, chosen, plan)
    moving, ages = None, None
    if rule is not None:
        leaves = {path: flat[path] for path in plan.places}
        moving = dynamic_mask.begin(rule, masters, leaves, plan.moving, plan.memory)
        ages = dynamic_mask.ages(rule, moving)
    recipe = plain_recipe(made)._replace(
        transform=chosen.transform(steps, made.backbone.blocks, ages),
        start=start,
        training=plan.training,
        augment=augmenting,
        accumulate_steps=chosen.accumulate_steps,
        ema=chosen.ema,
        additive=plan.additive,
        rule=rule,
    )
    rows = setup.batch_rows(made, pieces=chosen.accumulate_steps)
    feed = batches.training(enter(made.train), rows, made.settings["seed"], augmenting)
    stats, positions = made.variables.stats, plan.positions
    begin = step.start(recipe, flat, stats, masters, positions, moving)
    key = loss.random_key(made.settings["seed"])
    if like is not None:
        found = loop.again(like.trainer, begin, positions, feed, key)
        if found is not None:
            return Run(plan, like.recipe, *found, enter, like.predictor)
    trainer, state = loop.compile_training(
        made.devices, recipe, begin, positions, feed, key
    )
    predict = loop.predictor(made.devices, recipe, setup.batch_rows(made))
    return Run(plan, recipe, trainer, state, enter, predict)


def logits(run: Run, state: State, examples: Examples) -> np.ndarray:
    """Logits `[N, C]` of images, by the averaged values where there are any."""
    return loop.predict(run.predictor, state, run.trainer.fixed, run.enter(examples))


def with_values(run: Run, values: Flat) -> Flat:
    """The partial leaves whose positions do not move, with `values` in their places."""
    leaves, where = devices.to_host(run.state.partial), run.plan.positions
    return {
        path: np.asarray(elements.put(leaves[path], where[path], values[path]))
        for path in where
    }


def linear_probe(made: Setup) -> tuple[Run, State]:
    """A head trained alone on the frozen base, without augmentation."""
    settings = made.settings["optimizer"]
    chosen = optimizer.make("adam", learning_rate=settings["probe_learning_rate"])
    nothing = trees.map_leaves(lambda path, leaf: np.False_, made.variables.params)
    plan = partition.make(made.variables, made.backbone.blocks, Selection(nothing))
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
    if not wanted or made.backbone.drops or plan.start == made.backbone.blocks[0]:
        return None, same
    run, state, fixed = _trunk(made, plan.start)

    def enter(examples: Examples) -> Examples:
        outputs = loop.predict(run, state, fixed, examples)
        lengths = examples.lengths if outputs.ndim == 3 else None
        return dataset.resident(outputs, examples.labels)._replace(lengths=lengths)

    if _cached_bytes(made, plan.start) > CACHE_BYTES:
        return None, same
    return plan.start, enter


def _cached_bytes(made: Setup, start: str) -> int:
    """Size of what enters block `start`, for all training examples."""
    first = made.train.read(np.zeros(1, int))
    one = dataset.enter(made.backbone, jnp.asarray(first), jnp.float32)
    apply = functools.partial(made.backbone.apply, stop=start)
    output, _ = jax.eval_shape(apply, *made.variables, one)
    kind = jnp.dtype(setup.dtype(made))
    return output.size * kind.itemsize * len(made.train.labels)


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
