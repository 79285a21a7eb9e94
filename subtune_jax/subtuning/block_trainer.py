"""The block trainer: a trial from its first state to its last, and its logits.

Everything below the earliest block that changes is read from the activation cache. The
blocks from there on are composed of compiled block programs.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import HEAD, Variables
from subtune_jax.data import augment, batches, dataset, inputs
from subtune_jax.optim import optimizer
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.subtuning import activation_cache, block_programs, block_step
from subtune_jax.subtuning.activation_cache import ActivationCache
from subtune_jax.subtuning.block_programs import BlockVariables, Leaves
from subtune_jax.subtuning.block_step import TrialState
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.training.setup import Setup, new_head

Network = dict[str, BlockVariables]  # by block
Batch = tuple[jax.Array, Any, Any]  # what enters a block, targets, weights


class BlockTrainer(NamedTuple):
    """How candidates are trained.

    Attributes:
      setup: task, network, base.
      cache: the base's activations, and the compiled block programs.
      optimizer: followed for `train_steps` steps.
      train_steps: of a whole trial.
      heads: fold number -> the head that its trials start from; filled as needed.
    """

    setup: Setup
    cache: ActivationCache
    optimizer: Optimizer
    train_steps: int
    heads: dict[int, Leaves]


def begin(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    earlier: TrialState | None = None,
) -> TrialState:
    """The first state of a trial: the base's values and the fold's head.

    With `earlier`, the values that are in it: a second stage of training.
    """
    programs, setup = trainer.cache.programs, trainer.setup
    if not augment.active(setup.augment):
        activation_cache.keep(trainer.cache, _entry(trainer, candidate))
    flat = trees.flatten(setup.variables.params)
    if candidate.fresh:
        random = trees.flatten(_random(trainer, fold).params)
        flat |= {p: x for p, x in random.items() if p.split("/")[0] in candidate.fresh}
    values = {HEAD: earlier.values[HEAD] if earlier else _head(trainer, fold)}
    masters: dict[str, dict[str, Any]] = {}
    for path in candidate.trained:
        block, leaf = path.split("/", 1)
        trained = earlier.values.get(block, {}) if earlier else {}
        master = trained.get(leaf, np.asarray(flat[path], np.float32))
        masters.setdefault(block, {})[leaf] = master
    values |= block_programs.replicate(programs, masters)
    steps, stats = trainer.train_steps, dict(earlier.stats) if earlier else {}
    rule = block_step.update_rule(programs, trainer.optimizer, steps, values)
    return block_step.first_state(programs, rule, values, stats)


def advance(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    state: TrialState,
    until: int,
) -> TrialState:
    """The state after `until` steps in all."""
    programs, network = trainer.cache.programs, start_network(trainer, candidate, fold)
    steps = trainer.train_steps
    rule = block_step.update_rule(programs, trainer.optimizer, steps, state.values)
    normalise = trainer.setup.settings["batch_norm"] == "trained"
    for batch in entering(trainer, candidate, fold, network, state.step, until):
        state = block_step.step(
            programs, rule, network, state, batch, normalise=normalise
        )
    return state


def logits(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    state: TrialState,
    where: np.ndarray,
) -> np.ndarray:
    """Logits `[n, C]` of the examples `where` in the network as it is in `state`."""
    cache, entry = trainer.cache, _entry(trainer, candidate)
    programs, network = cache.programs, start_network(trainer, candidate, fold)
    for block, values in state.values.items():
        cast = {path: leaf.astype(programs.dtype) for path, leaf in values.items()}
        stats = state.stats.get(block, network[block].stats)
        network[block] = BlockVariables({**network[block].params, **cast}, stats)
    rows = []
    activation_cache.keep(cache, entry)
    for part in activation_cache.portions(cache, where):
        x = activation_cache.read(cache, entry, part)
        found = block_programs.run(programs, network, x, entry, None)
        rows.append(np.asarray(found)[: len(part)])
    return np.concatenate(rows)


def start_network(trainer: BlockTrainer, candidate: Candidate, fold: Fold) -> Network:
    """Every block as it starts: the base's, or random."""
    params, stats = _random(trainer, fold) if candidate.fresh else ({}, {})
    fresh = block_programs.on_devices(
        trainer.cache.programs, params, stats, candidate.fresh
    )
    return {**trainer.cache.base, **fresh}


def entering(
    trainer: BlockTrainer,
    candidate: Candidate,
    fold: Fold,
    network: Network,
    first: int,
    last: int,
) -> Iterator[Batch]:
    """The batches of steps `first` to `last`; they enter the first trained block.

    Args:
      trainer: of the trial.
      candidate: of the trial.
      fold: whose training examples they are.
      network: from `start_network`.
      first: step.
      last: step, excluded.
    """
    entry, order = _entry(trainer, candidate), trainer.setup.backbone.blocks
    learns = {path.split("/")[0] for path in candidate.trained} | {HEAD}
    trained = next(block for block in order if block in learns)
    programs = trainer.cache.programs
    source = _augmented if augment.active(trainer.setup.augment) else _cached
    for x, targets, weight in source(trainer, fold, entry, first, last):
        if trained != entry:
            x = block_programs.run(programs, network, x, entry, trained)
        yield x, targets, weight


def _cached(
    trainer: BlockTrainer, fold: Fold, block: str, first: int, last: int
) -> Iterator[Batch]:
    """Batches as they enter `block`, read from the cache."""
    if first == last:
        return
    cache, classes = trainer.cache, len(trainer.setup.task.classes)
    rows, labels = cache.rows, cache.examples.labels
    size, count = rows.batch_size, len(fold.train)
    weight = (np.arange(rows.padded) < size).astype(np.float32)
    places = batches.shuffled(fold.seed, count, first * size, last * size)
    for where in fold.train[places].reshape(-1, size):
        padded = np.pad(where, (0, rows.padded - size))
        x = activation_cache.read(cache, block, where)
        yield x, np.asarray(inputs.target(labels[padded], classes)), weight


def _augmented(
    trainer: BlockTrainer, fold: Fold, block: str, first: int, last: int
) -> Iterator[Batch]:
    """Batches of augmented images as they enter `block`: none can be kept."""
    programs, examples = trainer.cache.programs, trainer.cache.examples
    classes, options = len(trainer.setup.task.classes), trainer.setup.augment

    def read(where: np.ndarray) -> np.ndarray:
        return examples.read(fold.train[where])

    def augmented(piece: Any) -> tuple[jax.Array, jax.Array]:
        return inputs.labelled({}, piece, classes, options)

    own = dataset.Examples(examples.labels[fold.train], None, read)
    feed = batches.training(own, trainer.cache.rows, fold.seed, options)
    for piece in feed.pieces(first, last):
        placed = block_programs.spread(programs, dict(piece))
        x, targets = block_programs.call(programs, ("augmented",), augmented, placed)
        x = block_programs.run(programs, trainer.cache.base, x, None, block)
        yield x, targets, placed["weight"]


def _entry(trainer: BlockTrainer, candidate: Candidate) -> str:
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
