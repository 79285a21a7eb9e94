"""The program of a run: its compiled step, and its forward pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import devices, program_store, trees
from subtune_jax.core.devices import Devices
from subtune_jax.core.method import Selector, hold
from subtune_jax.core.program_store import Store
from subtune_jax.core.trees import Flat
from subtune_jax.data import augment, batches, dataset
from subtune_jax.data.batches import Feed
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import dynamic_mask, mask_rule
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.optim.partition import Partition
from subtune_jax.training import activation_cache, loss, prediction, step
from subtune_jax.training.activation_cache import ActivationCache
from subtune_jax.training.setup import Setup, batch_rows, dtype
from subtune_jax.training.step import Fixed, Recipe, State

CACHE_BYTES = dataset.RESIDENT_BYTES  # of a run's activation cache, in memory


class Program(NamedTuple):
    """A training step, ready to be taken, and the forward pass that goes with it.

    Attributes:
      recipe: static choices of the step.
      devices: where it runs.
      state: the first one, on the devices.
      fixed: what no step changes, on the devices.
      feed: of batches.
      step: `(state, fixed, piece) -> (state, metrics)`; `grad_norm` is among the
        metrics of a step by blocks if it clips.
      store: of the compiled programs: of texts each length has its own, made when it is
        first needed.
      examples: what the feed reads, as it enters block `recipe.start`.
      partition: what moves; with `outputs` None of a step made by hand.
      outputs: (state, fixed, examples) -> logits `[N, C]`.
      first_step: of a fused step, compiled for the first batch.
      shapes: of state and fixed: with the store, a run of the same compiles nothing.
      flops: floating-point operations of it on all devices, see `jaxprs.counted`.
    """

    recipe: Recipe
    devices: Devices
    state: State
    fixed: Fixed
    feed: Feed
    step: Callable[[State, Fixed, Any], tuple[State, dict[str, jax.Array]]]
    store: Store
    examples: Any = None
    partition: Any = None
    outputs: Any = None
    first_step: Any = None
    shapes: Any = None
    flops: float = 0.0


def build(
    setup: Setup,
    partition: Partition,
    optimizer: Optimizer,
    steps: int,
    *,
    augmented: bool = True,
    values: Flat | None = None,
    selector: Selector | None = None,
    store: Store | None = None,
    cache: ActivationCache | None = None,
    first: str | None = None,
) -> Program:
    """The fused program of a training of `steps` steps: one of all its blocks.

    What lies below the first block that moves is computed once, if nothing is random
    there and its output fits in memory.

    Args:
      setup: of the run.
      partition: what moves.
      optimizer: the updates.
      steps: of its schedule.
      augmented: whether images are augmented.
      values: masters to start from instead of the partition's, for some of the leaves.
      selector: the method, if it does anything during training.
      store: of a run that differs in its seed alone: what it compiled is used again
        where no shape differs.
      cache: of the trunk, if it is shared.
      first: the first block that is not the trunk's; None for the first that moves.

    Raises:
      ValueError: the optimiser cannot do what the method asks for.
    """
    where, blocks = setup.devices, setup.backbone.blocks
    changes = setup.augment if augmented else augment.NONE
    store = program_store.make(where) if store is None else store
    start, examples, first = None, setup.train, first or partition.start
    wanted = setup.settings["trunk_cache"] and changes == augment.NONE
    if wanted and not setup.backbone.drops and first != blocks[0]:
        cache = cache or _cache(setup, store)
        start, examples = activation_cache.entering(cache, examples, first)
    masters = {**partition.values, **(values or {})}
    used = blocks if start is None else blocks[blocks.index(start) :]
    params = setup.variables.params
    params = trees.flatten({block: params.get(block, {}) for block in used})
    rule, moving, ages = None, None, None
    if selector is not None and (
        selector.update is not hold or selector.view or selector.penalty
    ):
        rule = mask_rule.make(selector, optimizer, partition)
    if rule is not None:
        leaves = {path: params[path] for path in partition.places}
        method = partition.moving, partition.memory
        moving = dynamic_mask.begin(rule, masters, leaves, *method)
        ages = dynamic_mask.ages(rule, moving)
    recipe = prediction.plain_recipe(setup)._replace(
        transform=optimizer.transform(steps, blocks, ages),
        start=start,
        training=partition.training,
        augment=changes,
        accumulate_steps=optimizer.accumulate_steps,
        ema=optimizer.ema,
        additive=partition.additive,
        rule=rule,
    )
    rows = batch_rows(setup, pieces=optimizer.accumulate_steps)
    seed, positions = setup.settings["seed"], partition.positions
    feed = batches.training(examples, rows, seed, changes)
    stats = setup.variables.stats
    state, frozen = step.start(recipe, params, stats, masters, positions, moving)
    fixed = Fixed(frozen, positions, feed.resident, loss.random_key(seed))
    program = compiled(where, recipe, state, fixed, feed, store)
    outputs = prediction.forward(where, recipe, batch_rows(setup), store=store)

    def entered(state: State, fixed: Fixed, examples: Examples) -> np.ndarray:
        if cache is not None and start is not None:
            examples = activation_cache.entered(cache, examples, start)
        return outputs(state, fixed, examples)

    return program._replace(examples=examples, partition=partition, outputs=entered)


def compiled(
    where: Devices,
    recipe: Recipe,
    state: State,
    fixed: Fixed,
    feed: Feed,
    store: Store | None = None,
) -> Program:
    """The step of `recipe`, compiled for the first batch; state and fixed are placed.

    What `store` has of the same shapes is used again.
    """
    store = program_store.make(where) if store is None else store
    state, fixed = devices.replicate(where, (state, fixed))
    form = program_store.shapes((state, fixed))
    function = devices.parallel(where, step.make_train(recipe), donate=True)
    static = recipe.training, recipe.augment, recipe.accumulate_steps, recipe.ema
    key = "step", recipe.start, static, recipe.classes, recipe.dtype, form
    piece = devices.spread(where, next(feed.pieces(0, 1)))
    first, count = program_store.split(store, key, function, state, fixed, piece)
    train = functools.partial(program_store.call_split, store, key, function)
    return Program(
        recipe, where, state, fixed, feed, train, store,
        first_step=first, shapes=form, flops=count,
    )  # fmt: skip


def logits(program: Program, state: State, examples: Examples) -> np.ndarray:
    """Logits `[N, C]`, by the averaged values where there are any."""
    return program.outputs(state, program.fixed, examples)


def _cache(setup: Setup, store: Store) -> ActivationCache:
    """A cache of what enters the first block that moves."""

    @functools.cache
    def trunk(stop: str) -> Callable[[Examples], Any]:
        return prediction.frozen_rows(setup, setup.variables, stop, store)

    return activation_cache.make(
        setup.backbone,
        setup.variables,
        dtype(setup),
        lambda examples, start, stop: trunk(stop)(examples),  # nothing below is kept
        (CACHE_BYTES, 0),
    )
