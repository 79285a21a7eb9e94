"""The program of a run: its compiled step, and its forward pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, jaxprs, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.core.devices import Devices
from subtune_jax.core.method import Selector, hold
from subtune_jax.core.trees import Flat
from subtune_jax.data import augment, batches, dataset
from subtune_jax.data.augment import Augment
from subtune_jax.data.batches import Feed, Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import dynamic_mask, mask_rule
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.optim.partition import Partition
from subtune_jax.training import loss, step
from subtune_jax.training.setup import Setup, batch_rows, dtype
from subtune_jax.training.step import Fixed, Recipe, State

CACHE_BYTES = dataset.RESIDENT_BYTES  # of the trunk's output for the training examples


class Program(NamedTuple):
    """A training step, ready to be taken, and the forward pass that goes with it.

    Attributes:
      recipe: static choices of the step.
      devices: where it runs.
      state: the first one, on the devices.
      fixed: what no step changes, on the devices.
      feed: of batches.
      function: `(state, fixed, piece) -> (state, metrics)`, jitted.
      steps: shapes of a piece -> `function` compiled for them, the first step's first.
        Of texts each length has one, made when it is first needed.
      shapes: of state and fixed: a run of the same shapes compiles nothing.
      flops: floating-point operations of the first step on all devices, see
        `jaxprs.counted`.
      partition: what moves; with `enter` and `outputs` None of a step made by hand.
      enter: examples -> the same as they enter block `recipe.start`.
      outputs: (state, fixed, examples that have entered) -> logits `[N, C]`.
    """

    recipe: Recipe
    devices: Devices
    state: State
    fixed: Fixed
    feed: Feed
    function: Any
    steps: dict[Any, Any]
    shapes: Any
    flops: float
    partition: Any = None
    enter: Any = None
    outputs: Any = None

    @property
    def first_step(self) -> Any:
        """The step compiled for the first batch."""
        return next(iter(self.steps.values()))


def build(
    setup: Setup,
    partition: Partition,
    optimizer: Optimizer,
    steps: int,
    *,
    augmented: bool = True,
    values: Flat | None = None,
    selector: Selector | None = None,
    like: Program | None = None,
) -> Program:
    """The program of a training of `steps` steps.

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
      like: a program of another seed: what it compiled is used again, if it fits.

    Raises:
      ValueError: the optimiser cannot do what the method asks for.
    """
    where, blocks = setup.devices, setup.backbone.blocks
    changes = setup.augment if augmented else augment.NONE
    if like is not None and like.partition.start == partition.start:
        start, enter = like.recipe.start, like.enter
    else:
        like, (start, enter) = None, _entrance(setup, partition.start, changes)
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
    recipe = plain_recipe(setup)._replace(
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
    feed = batches.training(enter(setup.train), rows, seed, changes)
    stats = setup.variables.stats
    state, frozen = step.start(recipe, params, stats, masters, positions, moving)
    fixed = Fixed(frozen, positions, feed.resident, loss.random_key(seed))
    program = compiled(where, recipe, state, fixed, feed, like)
    outputs = program.outputs or forward(where, recipe, batch_rows(setup))
    return program._replace(partition=partition, enter=enter, outputs=outputs)


def compiled(
    where: Devices,
    recipe: Recipe,
    state: State,
    fixed: Fixed,
    feed: Feed,
    like: Program | None = None,
) -> Program:
    """The step of `recipe`, compiled for the first batch; state and fixed are placed.

    What `like` compiled is used again where no shape and no type differs.
    """
    state, fixed = devices.replicate(where, (state, fixed))
    shapes = jax.eval_shape(lambda *both: both, state, fixed)
    if like is not None and like.shapes == shapes:
        return like._replace(state=state, fixed=fixed, feed=feed)
    function = devices.parallel(where, step.make_train(recipe), donate=True)
    piece = devices.spread(where, next(feed.pieces(0, 1)))
    lowered = function.lower(state, fixed, piece)
    first = lowered.compile()
    count = jaxprs.counted(lowered, first, where.size, split=True)
    steps = {_shapes(piece): first}
    return Program(recipe, where, state, fixed, feed, function, steps, shapes, count)


def step_of(program: Program, state: State, piece: Any) -> Any:
    """The step compiled for pieces of these shapes."""
    shapes = _shapes(piece)
    if shapes not in program.steps:
        lowered = program.function.lower(state, program.fixed, piece)
        program.steps[shapes] = lowered.compile()
    return program.steps[shapes]


def logits(program: Program, state: State, examples: Examples) -> np.ndarray:
    """Logits `[N, C]`, by the averaged values where there are any."""
    return program.outputs(state, program.fixed, program.enter(examples))


def forward(
    where: Devices, recipe: Recipe, rows: Rows, *, stop: str | None = None
) -> Callable[[State, Fixed, Examples], np.ndarray]:
    """(state, fixed, examples) -> logits `[N, C]`, or what enters block `stop`."""
    function = step.make_predict(recipe, stop=stop)
    function = devices.parallel(where, function, rows_out=True)

    def outputs(state: State, fixed: Fixed, examples: Examples) -> np.ndarray:
        light = fixed._replace(resident={})  # inputs come with the pieces
        parts = []
        for piece in batches.sequential(examples, rows):
            _, output = function(state, light, devices.spread(where, piece))
            parts.append(devices.rows_to_host(where, output)[: rows.batch_size])
        if examples.lengths is not None and parts[0].ndim == 3:  # a place a token
            longest = int(examples.lengths.max())
            pads = [((0, 0), (0, longest - part.shape[1]), (0, 0)) for part in parts]
            parts = [np.pad(part, pad) for part, pad in zip(parts, pads, strict=True)]
        return np.concatenate(parts)[: len(examples.labels)]

    return outputs


def frozen(
    setup: Setup, variables: Variables, *, stop: str | None = None
) -> Callable[[Examples], np.ndarray]:
    """The network with these variables: examples -> logits, or what enters `stop`."""
    recipe, where = plain_recipe(setup), setup.devices
    params = trees.flatten(variables.params)
    state, leaves = step.start(recipe, params, variables.stats, {}, {})
    placed = devices.replicate(where, (state, Fixed(leaves, {}, {})))
    outputs = forward(where, recipe, batch_rows(setup), stop=stop)
    return functools.partial(outputs, *placed)


def plain_recipe(setup: Setup) -> Recipe:
    """The recipe of the network as it is: no augmentation, all blocks in evaluation."""
    return Recipe(
        backbone=setup.backbone,
        loss=setup.task.loss,
        classes=len(setup.task.classes),
        transform=setup.optimizer.transform(1, setup.backbone.blocks),
        dtype=dtype(setup),
    )


def _entrance(
    setup: Setup, start: str, changes: Augment
) -> tuple[str | None, Callable[[Examples], Examples]]:
    """The block that examples enter at, and how images become what enters there."""
    backbone = setup.backbone
    wanted = setup.settings["trunk_cache"] and changes == augment.NONE
    if not wanted or backbone.drops or start == backbone.blocks[0]:
        return None, lambda examples: examples
    first = jnp.asarray(setup.train.read(np.zeros(1, int)))
    first = dataset.enter(backbone, first, jnp.float32)
    apply = functools.partial(backbone.apply, stop=start)
    output, _ = jax.eval_shape(apply, *setup.variables, first)
    size = output.size * jnp.dtype(dtype(setup)).itemsize * len(setup.train.labels)
    if size > CACHE_BYTES:
        return None, lambda examples: examples
    trunk = frozen(setup, setup.variables, stop=start)

    def enter(examples: Examples) -> Examples:
        outputs = trunk(examples)
        lengths = examples.lengths if outputs.ndim == 3 else None
        return dataset.resident(outputs, examples.labels)._replace(lengths=lengths)

    return start, enter


def _shapes(piece: Any) -> Any:
    return tuple((name, rows.shape) for name, rows in sorted(piece.items()))
