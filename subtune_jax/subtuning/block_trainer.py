"""The block trainer: a trial from its first state to its last, and its logits.

Everything below the earliest block that changes is read from the activation cache; the
blocks from there on run by block programs.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD, Params, Variables
from subtune_jax.data import augment
from subtune_jax.optim import optimizer
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import activation_cache, block_optimizer, block_programs
from subtune_jax.subtuning.activation_cache import ActivationCache
from subtune_jax.subtuning.block_optimizer import UpdateRule
from subtune_jax.subtuning.block_programs import BlockVariables, Leaves, Programs
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.training.setup import Setup, new_head


class BlockTrainer(NamedTuple):
    """How candidates are trained.

    Attributes:
      setup: task, network, base.
      params: path -> leaf of the base and its head.
      cache: the base's activations, and the compiled block programs.
      optimizer: followed for `train_steps` steps.
      train_steps: of a whole trial.
      heads: fold number -> the head that its trials start from; filled as needed.
    """

    setup: Setup
    params: dict[str, np.ndarray]
    cache: ActivationCache
    optimizer: Optimizer
    train_steps: int
    heads: dict[int, Leaves]


class TrialState(NamedTuple):
    """A trial under way.

    Attributes:
      step: steps done.
      values: block -> float32 masters of its trained leaves, by path in the block.
      moments: block -> state of the optimiser.
      stats: block -> running statistics, of the blocks that update theirs.
      rule: by which the optimiser updates them.
    """

    step: int
    values: dict[str, Leaves]
    moments: dict[str, Any]
    stats: dict[str, Params]
    rule: UpdateRule


def begin(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    earlier: TrialState | None = None,
) -> TrialState:
    """The first state of a trial: the base's values and the fold's head.

    With `earlier`, the values that are in it: a second stage of training.
    """
    if trainer.setup.augment == augment.NONE:
        activation_cache.keep(trainer.cache, entry(trainer, candidate))
    params = trainer.params
    if candidate.fresh:
        random = trees.flatten(_random(trainer, fold).params)
        fresh = [path for path in random if path.split("/")[0] in candidate.fresh]
        params = params | {path: random[path] for path in fresh}
    head = earlier.values[HEAD] if earlier else _head(trainer, fold)
    masters: dict[str, dict[str, Any]] = {HEAD: head}
    for path in candidate.trained:
        block, leaf = path.split("/", 1)
        before = earlier.values.get(block, {}) if earlier else {}
        master = before.get(leaf, np.asarray(params[path], np.float32))
        masters.setdefault(block, {})[leaf] = master
    rule, values, moments = block_optimizer.begin(
        trainer.cache.programs, trainer.optimizer, trainer.train_steps, masters
    )
    stats = dict(earlier.stats) if earlier else {}
    return TrialState(0, values, moments, stats, rule)


def advance(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    state: TrialState,
    until: int,
) -> TrialState:
    """The state after `until` steps in all."""
    cache, setup, start = trainer.cache, trainer.setup, entry(trainer, candidate)
    programs, order = cache.programs, setup.backbone.blocks
    network = network_of(trainer, candidate, fold, state)
    first_trained = next(block for block in order if block in state.values)
    normalise = setup.settings["batch_norm"] == "trained"
    steps, classes = range(state.step, until), len(setup.task.classes)
    feed = activation_cache.training_batches(
        cache, start, fold, steps, classes, setup.augment
    )
    for x, *rest in feed:
        if first_trained != start:
            x = block_programs.run(programs, network, x, start, first_trained)
        gradient = block_programs.gradient(
            programs, network, state.values, (x, *rest), normalise=normalise
        )
        values, moments = block_optimizer.update(
            programs, state.rule, state.values, state.moments, gradient.grads
        )
        for block, stats in gradient.stats.items():
            network[block] = network[block]._replace(stats=stats)
        stats = {**state.stats, **gradient.stats}
        state = TrialState(state.step + 1, values, moments, stats, state.rule)
    return state


def logits(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    state: TrialState,
    where: np.ndarray,
) -> np.ndarray:
    """Logits `[n, C]` of the examples `where` in the network as it is in `state`."""
    network = network_of(trainer, candidate, fold, state)
    for block, values in state.values.items():
        dtype, own = trainer.cache.programs.dtype, network[block]
        cast = {path: leaf.astype(dtype) for path, leaf in values.items()}
        network[block] = own._replace(params={**own.params, **cast})
    start = entry(trainer, candidate)
    return activation_cache.outputs(trainer.cache, network, start, where)


def network_of(
    trainer: BlockTrainer, candidate: Candidate, fold: Fold, state: TrialState
) -> dict[str, BlockVariables]:
    """Every block as a trial has it, but for what is trained: the base's, or random."""
    network = dict(trainer.cache.base)
    if candidate.fresh:
        params, stats = _random(trainer, fold)
        network |= on_devices(trainer.cache.programs, params, stats, candidate.fresh)
    for block, stats in state.stats.items():
        network[block] = network[block]._replace(stats=stats)
    return network


def on_devices(
    programs: Programs, params: Params, stats: Params, blocks: Iterable[str]
) -> dict[str, BlockVariables]:
    """What each of some `blocks` of a network computes with."""
    variables = {}
    for block in blocks:
        flat = trees.flatten(params.get(block, {}))
        cast = {path: jnp.asarray(leaf, programs.dtype) for path, leaf in flat.items()}
        variables[block] = BlockVariables(cast, stats.get(block, {}))
    return block_programs.replicate(programs, variables)


def entry(trainer: BlockTrainer, candidate: Candidate) -> str:
    """The earliest block that differs from the base, or will."""
    moving = {path.split("/")[0] for path in candidate.trained}
    moving |= {*candidate.fresh, HEAD}
    return next(block for block in trainer.setup.backbone.blocks if block in moving)


def _random(trainer: BlockTrainer, fold: Fold) -> Variables:
    # Another stream than that of random bases and heads of the same seed.
    key = jax.random.fold_in(jax.random.key(fold.seed), 1)
    return trainer.setup.backbone.init(key, len(trainer.setup.task.classes))


def _head(trainer: BlockTrainer, fold: Fold) -> Leaves:
    """The fold's new head; after linear probing, if the optimiser has such steps."""
    if fold.number not in trainer.heads:
        setup, programs = trainer.setup, trainer.cache.programs
        head = new_head(setup.backbone, len(setup.task.classes), fold.seed)
        flat = trees.flatten(head)
        trainer.heads[fold.number] = block_programs.replicate(programs, flat)
        count = setup.optimizer.probe_steps
        if count:
            rate = setup.optimizer.probe_learning_rate
            probing = trainer._replace(
                setup=setup._replace(augment=augment.NONE),
                optimizer=optimizer.make("adam", learning_rate=rate),
                train_steps=count,
            )
            state = begin(probing, Candidate(), fold)
            state = advance(probing, Candidate(), fold, state, count)
            trainer.heads[fold.number] = state.values[HEAD]
    return trainer.heads[fold.number]
