"""Prediction: the forward pass of a network, as trained or frozen, batch by batch."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from subtune_jax.core import devices, program_store, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.core.devices import Devices
from subtune_jax.core.program_store import Store
from subtune_jax.data import batches
from subtune_jax.data.batches import Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.training import step
from subtune_jax.training.setup import Setup, batch_rows, dtype
from subtune_jax.training.step import Fixed, Recipe, State


def forward(
    where: Devices, recipe: Recipe, rows: Rows, *, store: Store | None = None
) -> Callable[[State, Fixed, Examples], np.ndarray]:
    """(state, fixed, examples) -> logits `[N, C]`.

    Args:
      where: it runs.
      recipe: of the network.
      rows: of a batch.
      store: of programs; a new one by default.
    """
    forward_rows = _forward_rows(where, recipe, rows, None, store)

    def outputs(state: State, fixed: Fixed, examples: Examples) -> np.ndarray:
        return joined(list(forward_rows(state, fixed, examples)), examples)

    return outputs


def _forward_rows(
    where: Devices, recipe: Recipe, rows: Rows, stop: str | None, store: Store | None
) -> Callable[[State, Fixed, Examples], Iterator[np.ndarray]]:
    store = program_store.make(where) if store is None else store
    function = step.make_predict(recipe, stop=stop)
    function = devices.parallel(where, function, rows_out=True)

    def forward_rows(state: State, fixed: Fixed, examples: Examples) -> Any:
        light = fixed._replace(resident={})  # inputs come with the pieces
        key = "forward", recipe.start, stop, program_store.shapes((state, light))

        def run(piece: Any) -> jax.Array:
            given = key, function, state, light, piece
            return program_store.call_split(store, *given)[1]

        return outputs_of(where, rows, run, examples)

    return forward_rows


def outputs_of(
    where: Devices,
    rows: Rows,
    run: Callable[[Any], jax.Array],
    examples: Examples,
) -> Iterator[np.ndarray]:
    """`run` of every batch of the examples in order, `[n, ...]` without its padding."""
    left = len(examples.labels)
    for piece in batches.sequential(examples, rows):
        output = devices.rows_to_host(where, run(devices.spread(where, piece)))
        yield output[: min(rows.batch_size, left)]
        left -= rows.batch_size


def joined(parts: list[np.ndarray], examples: Examples) -> np.ndarray:
    """The outputs of all batches; of texts, `[N, L, D]`, L of the longest."""
    if examples.lengths is not None and parts[0].ndim == 3:  # a place a token
        longest = int(examples.lengths.max())
        pads = [((0, 0), (0, longest - part.shape[1]), (0, 0)) for part in parts]
        parts = [np.pad(part, pad) for part, pad in zip(parts, pads, strict=True)]
    return np.concatenate(parts)


def frozen(
    setup: Setup, variables: Variables, *, stop: str | None = None
) -> Callable[[Examples], np.ndarray]:
    """The network with these variables: examples -> logits, or what enters `stop`."""
    forward_rows = frozen_rows(setup, variables, stop)
    return lambda examples: joined(list(forward_rows(examples)), examples)


def frozen_rows(
    setup: Setup,
    variables: Variables,
    stop: str | None,
    store: Store | None = None,
) -> Callable[[Examples], Iterator[np.ndarray]]:
    """The same as `frozen`, batch by batch in order."""
    recipe, where = plain_recipe(setup), setup.devices
    params = trees.flatten(variables.params)
    state, leaves = step.start(recipe, params, variables.stats, {}, {})
    placed = devices.replicate(where, (state, Fixed(leaves, {}, {})))
    rows = _forward_rows(where, recipe, batch_rows(setup), stop, store)
    return functools.partial(rows, *placed)


def plain_recipe(setup: Setup) -> Recipe:
    """The recipe of the network as it is: no augmentation, all blocks in evaluation."""
    return Recipe(
        backbone=setup.backbone,
        loss=setup.task.loss,
        classes=len(setup.task.classes),
        transform=setup.optimizer.transform(1, setup.backbone.blocks),
        dtype=dtype(setup),
    )
