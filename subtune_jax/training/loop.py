"""Running compiled steps: training, prediction, and the trunk that never changes."""

import time
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import devices
from subtune_jax.core import flops as costs
from subtune_jax.core.devices import Devices
from subtune_jax.core.elements import Flat
from subtune_jax.data import batches
from subtune_jax.data.batches import Feed, Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.training import step
from subtune_jax.training.step import Fixed, Recipe, State


class NonFiniteLossError(FloatingPointError):
    """The loss or a trained value is no longer a finite number."""


class Trainer(NamedTuple):
    """A compiled training step and what it needs at every call.

    Attributes:
      devices: where it runs.
      compiled: (state, fixed, piece) -> (state, metrics), of the first step's piece.
      programs: shapes of a piece -> the program for such pieces; of texts each length
        has one, compiled when it is first needed.
      fixed: frozen arrays, positions and the resident data, on the devices.
      feed: of batches.
      flops: floating-point operations of the first step on all devices, see
        `flops.counted`.
      function: what is compiled.
      form: shapes and types of the state and the fixed arrays.
    """

    devices: Devices
    compiled: Any
    fixed: Fixed
    feed: Feed
    flops: float
    programs: dict[Any, Any]
    function: Any
    form: Any


def compile_training(
    where: Devices,
    recipe: Recipe,
    start: tuple[State, Flat],
    positions: Flat,
    feed: Feed,
    key: Any = None,
) -> tuple[Trainer, State]:
    """Places `start` (state, frozen leaves) on the devices and compiles the step."""
    state, frozen = start
    placed, fixed = devices.replicate(
        where, (state, Fixed(frozen, positions, feed.resident, key))
    )
    function = devices.parallel(where, step.make_train(recipe), donate=True)
    piece = devices.spread(where, next(feed.pieces(0, 1)))
    lowered = function.lower(placed, fixed, piece)
    compiled = lowered.compile()
    flops = costs.counted(lowered, compiled, where.size, split=True)
    programs = {_form(piece): compiled}
    form = jax.eval_shape(lambda *both: both, placed, fixed)
    trainer = Trainer(where, compiled, fixed, feed, flops, programs, function, form)
    return trainer, placed


def again(
    trainer: Trainer, start: tuple[State, Flat], positions: Flat, feed: Feed, key: Any
) -> tuple[Trainer, State] | None:
    """As `compile_training`, by the programs of `trainer`; None if they do not fit.

    They fit where no shape and no type differs: those of another seed of the same run.
    """
    state, frozen = start
    both = state, Fixed(frozen, positions, feed.resident, key)
    placed, fixed = devices.replicate(trainer.devices, both)
    if jax.eval_shape(lambda *both: both, placed, fixed) != trainer.form:
        return None
    return trainer._replace(fixed=fixed, feed=feed), placed


def program(trainer: Trainer, state: State, piece: Any) -> Any:
    """The compiled step for pieces of this form."""
    form = _form(piece)
    if form not in trainer.programs:
        lowered = trainer.function.lower(state, trainer.fixed, piece)
        trainer.programs[form] = lowered.compile()
    return trainer.programs[form]


def _form(piece: Any) -> Any:
    return tuple((name, rows.shape) for name, rows in sorted(piece.items()))


def fit(
    trainer: Trainer,
    state: State,
    first: int,
    last: int,
    log: Callable[[int, dict[str, float]], None],
    pauses: Container[int] = (),
    pause: Callable[[int, State], None] = lambda done, state: None,
) -> tuple[State, float]:
    """Runs steps `first` to `last`; the last state, and seconds waited for data.

    Args:
      trainer: the compiled step.
      state: after `first` steps; its buffers are given away.
      first: steps done before.
      last: steps done after.
      log: called with (steps done, metrics) of every step, in order; metrics are
        read while the device works on the next step.
      pauses: numbers of steps after which `pause` is called.
      pause: (steps done, state); may read the state, not keep it.

    Raises:
      NonFiniteLossError: the loss of a step is not finite.
    """
    waited, pending = 0.0, None
    pieces = trainer.feed.pieces(first, last)
    for done in range(first + 1, last + 1):
        begin = time.perf_counter()
        piece = devices.spread(trainer.devices, next(pieces))
        waited += time.perf_counter() - begin
        state, metrics = program(trainer, state, piece)(state, trainer.fixed, piece)
        if pending is not None:
            log(*_read(*pending))
        pending = (done, metrics)
        if done in pauses or done == last:
            log(*_read(*pending))
            pending = None
            pause(done, state)
    return state, waited


def _read(done: int, metrics: dict[str, jax.Array]) -> tuple[int, dict[str, float]]:
    """Metrics as numbers; stops the run when the loss is not one."""
    numbers = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(numbers["loss"]):
        raise NonFiniteLossError(f"the loss of step {done} is {numbers['loss']}")
    return done, numbers


class Predictor(NamedTuple):
    """A compiled forward pass: `function(state, fixed, piece) -> (None, rows)`."""

    devices: Devices
    function: Any
    rows: Rows


def predictor(
    where: Devices, recipe: Recipe, rows: Rows, *, stop: str | None = None
) -> Predictor:
    """A `Predictor` of logits, or of what enters block `stop`."""
    function = step.make_predict(recipe, stop=stop)
    return Predictor(where, devices.parallel(where, function, rows_out=True), rows)


def predict(
    predictor: Predictor, state: State, fixed: Fixed, examples: Examples
) -> np.ndarray:
    """Outputs `[N, ...]` for every example, once and in order, on every process."""
    size, outputs = predictor.rows.batch_size, []
    light = fixed._replace(resident={})  # inputs come with the pieces
    for piece in batches.sequential(examples, predictor.rows):
        placed = devices.spread(predictor.devices, piece)
        _, output = predictor.function(state, light, placed)
        outputs.append(devices.rows_to_host(predictor.devices, output)[:size])
    if examples.lengths is not None and outputs[0].ndim == 3:  # a place for each token
        longest = int(examples.lengths.max())
        outputs = [_padded(output, longest) for output in outputs]
    return np.concatenate(outputs)[: len(examples.labels)]


def _padded(output: np.ndarray, longest: int) -> np.ndarray:
    return np.pad(output, ((0, 0), (0, longest - output.shape[1]), (0, 0)))
