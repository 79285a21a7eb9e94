"""The training step by blocks: the state and the batch of `step`, other programs.

`step` compiles one program for a run. Here each block has programs of its own, see
`block_programs`, for its part of the gradient and for the update of its leaves: many
short trainings of one base, which differ in what they train, compile little. They share
the base on the devices and what enters its blocks. Whole leaves are trained.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, program_store, trees
from subtune_jax.core.contracts import Params, Variables
from subtune_jax.core.program_store import Store
from subtune_jax.core.trees import Flat
from subtune_jax.data import augment, batches
from subtune_jax.data.batches import Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.optim.partition import Partition
from subtune_jax.training import (
    activation_cache,
    block_programs,
    block_update,
    loss,
    prediction,
)
from subtune_jax.training.activation_cache import ActivationCache
from subtune_jax.training.block_programs import Network
from subtune_jax.training.block_update import UpdateRule
from subtune_jax.training.prediction import plain_recipe
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup, batch_rows, dtype
from subtune_jax.training.step import Fixed, Recipe, State

Step = Callable[[State, Fixed, Any], tuple[State, dict[str, jax.Array]]]


class Trunk(NamedTuple):
    """What trainings by blocks share: the frozen base.

    Attributes:
      variables: the base with a head, host arrays.
      leaves: path -> the same on the devices, in the type of the computation.
      stats: its statistics on the devices.
      cache: what enters its blocks.
      store: the block programs.
    """

    variables: Variables
    leaves: Flat
    stats: Params
    cache: ActivationCache
    store: Store


def share(setup: Setup, bounds: tuple[int, int], parent: Path | None = None) -> Trunk:
    """The trunk of trainings of `setup`'s base.

    Args:
      setup: its variables are the base.
      bounds: of the activation cache, bytes in memory and on disk.
      parent: files of the cache go below it.
    """
    where = setup.devices._replace(mode="shard_map")  # rows, not a device's rows
    store, recipe = program_store.make(where), plain_recipe(setup)
    leaves = _placed(recipe, store, trees.flatten(setup.variables.params))
    stats = devices.replicate(where, setup.variables.stats)
    network = block_programs.network_of(recipe, leaves, stats)
    rows = batch_rows(setup)

    def forward(examples: Examples, start: str | None, stop: str) -> Any:
        inside = recipe._replace(start=start)
        return _forward(store, inside, network, rows, examples, stop)

    cache = activation_cache.make(
        setup.backbone, setup.variables, dtype(setup), forward, bounds, parent
    )
    return Trunk(setup.variables, leaves, stats, cache, store)


def build(
    trunk: Trunk,
    setup: Setup,
    partition: Partition,
    optimizer: Optimizer,
    steps: int,
    *,
    augmented: bool = True,
) -> Program:
    """The program of a training of `steps` steps, by blocks; see `program.build`.

    Its numbers are those of that one, to float noise; on several devices units are
    dropped for the whole batch, where a fused step draws for each device. What lies
    below the first block that moves or is not the trunk's is computed once, if nothing
    is random there.

    Args:
      trunk: of the base; leaves of `setup` that are others are placed now.
      setup: of the training.
      partition: what moves: whole leaves.
      optimizer: the updates, without Auto-RGN.
      steps: of its schedule.
      augmented: whether images are augmented.
    """
    store, backbone, masters = trunk.store, setup.backbone, partition.values
    changes = setup.augment if augmented else augment.NONE
    others, stats = _others(trunk, setup)
    first = first_block(trunk, setup, partition)
    start, examples = None, setup.train
    if changes == augment.NONE and not backbone.drops:
        cache = trunk.cache
        start, examples = activation_cache.entering(cache, examples, first)
    recipe = plain_recipe(setup)._replace(
        start=start, training=partition.training, augment=changes, ema=optimizer.ema
    )
    seed = setup.settings["seed"]
    # Many short trainings: what few steps read is not worth a copy on the devices.
    feed = batches.training(examples, batch_rows(setup), seed, changes, resident=False)
    others = {path: leaf for path, leaf in others.items() if path not in masters}
    frozen = {p: leaf for p, leaf in trunk.leaves.items() if p not in masters}
    frozen |= _placed(recipe, store, others)
    values, stats, number, key = devices.replicate(
        store.devices, (masters, stats, np.int32(0), loss.random_key(seed))
    )
    rule, opt_state = block_update.begin(store, recipe, optimizer, steps, values)
    ema = dict(values) if optimizer.ema else None
    stats = {**trunk.stats, **stats}
    state = State(number, values, {}, opt_state, ema, stats)
    return Program(
        recipe=recipe,
        devices=store.devices,
        state=state,
        fixed=Fixed(frozen, {}, {}, key),
        feed=feed,
        step=make_train(store, recipe, rule),
        store=store,
        examples=examples,
        partition=partition,
        outputs=_outputs(trunk, recipe, first, batch_rows(setup)),
    )


def first_block(trunk: Trunk, setup: Setup, partition: Partition) -> str:
    """The first block that moves, or that is not the trunk's."""
    others, stats = _others(trunk, setup)
    moved = {path.split("/")[0] for path in (*partition.values, *others)} | stats.keys()
    return next(block for block in setup.backbone.blocks if block in moved)


def _others(trunk: Trunk, setup: Setup) -> tuple[Flat, Params]:
    """The leaves by path, and statistics by block, that are not the trunk's."""
    base, own = (trees.flatten(v.params) for v in (trunk.variables, setup.variables))
    leaves = {path: leaf for path, leaf in own.items() if leaf is not base.get(path)}
    known = trunk.variables.stats
    stats = {b: s for b, s in setup.variables.stats.items() if s is not known.get(b)}
    return leaves, stats


def _placed(recipe: Recipe, store: Store, leaves: Flat) -> Flat:
    cast = {path: jnp.asarray(leaf, recipe.dtype) for path, leaf in leaves.items()}
    return devices.replicate(store.devices, cast)


def _outputs(trunk: Trunk, recipe: Recipe, first: str, rows: Rows) -> Any:
    """(state, fixed, examples) -> logits `[N, C]`; the trunk ends before `first`."""
    store, cache = trunk.store, trunk.cache

    def outputs(state: State, fixed: Fixed, examples: Examples) -> np.ndarray:
        start, entered = activation_cache.entering(cache, examples, first)
        inside = recipe._replace(start=start)
        masters = state.values if state.ema is None else state.ema
        values = {path: leaf.astype(recipe.dtype) for path, leaf in masters.items()}
        leaves = {**fixed.frozen, **values}
        network = block_programs.network_of(recipe, leaves, state.stats)
        parts = _forward(store, inside, network, rows, entered)
        return prediction.joined(list(parts), entered)

    return outputs


def _forward(
    store: Store,
    recipe: Recipe,
    network: Network,
    rows: Rows,
    examples: Examples,
    stop: str | None = None,
) -> Iterator[np.ndarray]:
    """Logits, or what enters block `stop`, of examples that enter `recipe.start`."""

    def run(piece: Any) -> jax.Array:
        x = piece["inputs"]
        if recipe.start is None:  # activations come as they are kept
            enter = functools.partial(loss.enter, recipe)
            x = block_programs.call(store, ("enter",), enter, x)
        return block_programs.run(store, recipe, network, x, stop)

    return prediction.outputs_of(store.devices, rows, run, examples)


def make_train(store: Store, recipe: Recipe, rule: UpdateRule) -> Step:
    """The step `(state, fixed, piece) -> (state, metrics)` by block programs."""

    def step(state: State, fixed: Fixed, piece: Any) -> tuple[State, dict[str, Any]]:
        batch = block_programs.gradient(store, recipe, state, fixed, piece)
        values, opt_state, ema, norm = block_update.update(
            store, recipe, rule, state.values, state.opt_state, state.ema, batch.grads
        )
        stats = {**state.stats, **batch.stats}
        after = State(batch.done, values, {}, opt_state, ema, stats)
        return after, batch.metrics | norm

    return step
