"""The trainer: a training of a candidate on a fold, as `train` would do it.

It is a program of `training` on a setup of its own: the fold's examples, its seed and
its head. All share one base. The step is by blocks, or fused where the optimiser asks
for what blocks do not have; here alone it is asked which.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import devices, program_store, trees
from subtune_jax.core.contracts import HEAD, Variables
from subtune_jax.core.method import Selection
from subtune_jax.core.program_store import Store
from subtune_jax.core.trees import Flat
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import partition
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.selection import masks
from subtune_jax.subtuning.candidates import Candidate
from subtune_jax.subtuning.folds import Fold
from subtune_jax.training import block_step, program
from subtune_jax.training.block_step import Trunk
from subtune_jax.training.program import Program
from subtune_jax.training.run import linear_probe
from subtune_jax.training.setup import Setup, new_head
from subtune_jax.training.step import State


class Trainer(NamedTuple):
    """What the trainings of all candidates share.

    Attributes:
      setup: task, network, base.
      trunk: the base on the devices, and the block programs.
      pool: the training examples, then those of validation.
      heads: (fold, whether it is probed) -> the head that its trainings start from,
        host arrays by path; filled as needed.
      fused: what it is for -> the store of the latest fused programs, at most one.
    """

    setup: Setup
    trunk: Trunk
    pool: Examples
    heads: dict[tuple[int, bool], Flat]
    fused: dict[Any, Store]


def training(
    trainer: Trainer,
    candidate: Candidate,
    fold: Fold,
    optimizer: Optimizer | None = None,
    *,
    steps: int | None = None,
    probed: bool = True,
    augmented: bool = True,
    earlier: tuple[Sequence[str], State] | None = None,
) -> tuple[Setup, Program]:
    """A training before its first step: the fold's setup, and the program.

    Args:
      trainer: what trainings share.
      candidate: what is trained; the head is with any.
      fold: its examples and its seed.
      optimizer: instead of the setup's.
      steps: of its schedule, instead of the setup's.
      probed: whether it starts from the linear probe's head, if the optimiser of the
        setup has such steps.
      augmented: whether images are augmented.
      earlier: of a stage that has ended, whose values and statistics it starts from:
        the blocks that learnt statistics, and the state.
    """
    optimizer = trainer.setup.optimizer if optimizer is None else optimizer
    steps = trainer.setup.settings["train_steps"] if steps is None else steps
    own = _setup(trainer, candidate, fold, probed, earlier)
    flags = dict.fromkeys(candidate.trained, np.True_)
    parts = partition.make(
        own.variables,
        own.backbone.blocks,
        Selection(masks.fill(own.variables.params, flags)),
        batch_norm=own.settings["batch_norm"],
    )
    if blockwise(optimizer):
        build = functools.partial(block_step.build, trainer.trunk)
        return own, build(own, parts, optimizer, steps, augmented=augmented)
    key = candidate, optimizer, steps, augmented
    if key not in trainer.fused:
        store = trainer.trunk.store
        trainer.fused.clear()
        trainer.fused[key] = program_store.make(own.devices, store.spent)
    built = program.build(
        own, parts, optimizer, steps, augmented=augmented, store=trainer.fused[key],
        cache=trainer.trunk.cache,
        first=block_step.first_block(trainer.trunk, own, parts),
    )  # fmt: skip
    return own, built


def _setup(
    trainer: Trainer,
    candidate: Candidate,
    fold: Fold,
    probed: bool,
    earlier: tuple[Sequence[str], State] | None,
) -> Setup:
    """The setup of a fold, with the variables that a training starts from."""
    setup = trainer.setup
    own = setup._replace(
        settings={**setup.settings, "seed": fold.seed},
        train=dataset.part(trainer.pool, fold.train),
        validation=dataset.part(trainer.pool, fold.held),
    )
    changed = _head(trainer, own, fold, probed and bool(setup.optimizer.probe_steps))
    stats: dict[str, Any] = {}
    if candidate.fresh:
        random = _random(own)
        flat = trees.flatten(random.params).items()
        changed |= {p: x for p, x in flat if p.split("/")[0] in candidate.fresh}
        stats = {b: s for b, s in random.stats.items() if b in candidate.fresh}
    if earlier is not None:
        learnt, state = earlier
        changed |= devices.to_host(state.values)
        stats |= devices.to_host({b: s for b, s in state.stats.items() if b in learnt})
    return _with(own, changed, stats)


def blockwise(optimizer: Optimizer) -> bool:
    """Whether a step by blocks does what an optimiser asks for.

    Auto-RGN looks at all leaves at once; pieces of a batch are one alive at a time.
    """
    return not optimizer.rgn_steps and optimizer.accumulate_steps == 1


def _head(trainer: Trainer, own: Setup, fold: Fold, probed: bool) -> Flat:
    """The fold's new head, after linear probing if `probed`; kept, by path."""
    key = fold.number, probed
    if key not in trainer.heads:
        head = new_head(own.backbone, len(own.task.classes), fold.seed)
        flat = trees.flatten({HEAD: head})
        if probed:
            build = functools.partial(block_step.build, trainer.trunk)
            probe = linear_probe(_with(own, flat, {}), build)
            flat = devices.to_host(probe.state.values)
        trainer.heads[key] = flat
    return dict(trainer.heads[key])


def _random(own: Setup) -> Variables:
    # Another stream than that of random bases and heads of the same seed.
    key = jax.random.fold_in(jax.random.key(own.settings["seed"]), 1)
    return own.backbone.init(key, len(own.task.classes))


def _with(own: Setup, leaves: Flat, stats: dict[str, Any]) -> Setup:
    """The setup with some leaves, by path, and statistics, by block, replaced."""
    params = trees.rebuild(
        own.variables.params, {**trees.flatten(own.variables.params), **leaves}
    )
    return own._replace(variables=Variables(params, {**own.variables.stats, **stats}))
