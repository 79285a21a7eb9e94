"""Block programs: each distinct block of a network compiled by itself.

A training step runs forward from the first trained block, keeping the pullback of each
block, which takes a gradient back through it, and then backward. No program belongs to
a set of blocks: a new set compiles nothing once its blocks were compiled frozen and
trained, and alike blocks share theirs. Rows are spread over the devices and all else is
replicated; XLA places reductions.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import program_store, trees
from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import AXIS
from subtune_jax.core.program_store import Store
from subtune_jax.core.trees import Flat
from subtune_jax.data import dataset
from subtune_jax.training import loss
from subtune_jax.training.step import Fixed, Recipe, State

Leaves = dict[str, jax.Array]  # path inside a block -> array


class BlockVariables(NamedTuple):
    """What one block computes with: parameters in the compute type, and statistics."""

    params: Leaves
    stats: Params


Network = Mapping[str, BlockVariables]  # by block


def by_block(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Path -> array, as block -> path inside the block -> array."""
    blocks: dict[str, dict[str, Any]] = {}
    for path, leaf in flat.items():
        block, inside = path.split("/", 1)
        blocks.setdefault(block, {})[inside] = leaf
    return blocks


def network_of(recipe: Recipe, flat: Flat, stats: Params) -> dict[str, BlockVariables]:
    """Every block of the network with its leaves among `flat` and its statistics."""
    own = by_block(flat)
    blocks = recipe.backbone.blocks
    return {b: BlockVariables(own.get(b, {}), stats.get(b, {})) for b in blocks}


def run(
    store: Store,
    recipe: Recipe,
    network: Network,
    x: jax.Array,
    stop: str | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """What enters block `stop`, of `x` that enters `recipe.start`; None: logits.

    In evaluation mode; with a `key`, units are dropped.
    """
    order = recipe.backbone.blocks
    first = 0 if recipe.start is None else order.index(recipe.start)
    last = None if stop is None else order.index(stop)
    for block in order[first:last]:
        name = _program(recipe, block, key)

        def forward(own, x, key, name=name):
            return _apply(recipe, name, own.params, own.stats, x, key=key)[0]

        x = call(store, ("forward", name), forward, network[block], x, key)
    return x


class Gradient(NamedTuple):
    """The gradient of a batch.

    Weighted means, `loss` and of classes `accuracy`; block -> gradients, the last block
    first; block -> statistics after the batch, where they are learnt; steps then done.
    """

    metrics: dict[str, jax.Array]
    grads: dict[str, Leaves]
    stats: dict[str, Params]
    done: jax.Array


def gradient(
    store: Store, recipe: Recipe, state: State, fixed: Fixed, piece: Any
) -> Gradient:
    """The gradient of a batch by the trained leaves, the values of `state`."""
    order, trained = recipe.backbone.blocks, by_block(state.values)
    network = network_of(recipe, fixed.frozen, state.stats)
    x, targets, weight, key, done = _batch(store, recipe, state, fixed, piece)
    path = order[min(order.index(block) for block in trained) :]
    x = run(store, recipe, network, x, path[0], key)
    pullbacks, stats = [], {}
    for block in path:
        own = network[block]
        learns = block in recipe.training and bool(own.stats)
        x, pullback, after = vjp(
            store, recipe, block, trained.get(block, {}), own, x,
            through=block != path[0], weight=weight if learns else None, key=key,
        )  # fmt: skip
        pullbacks.append(pullback)
        if learns:
            stats[block] = after

    def slope(logits, targets, weight):
        def mean(logits: jax.Array) -> jax.Array:
            return jnp.sum(weight * recipe.loss(logits, targets)) / jnp.sum(weight)

        value, dy = jax.value_and_grad(mean)(logits)
        metrics = {"loss": value}
        if recipe.classes > 1:
            right = weight * loss.right(logits, targets)
            metrics["accuracy"] = jnp.sum(right) / jnp.sum(weight)
        return metrics, dy

    metrics, dy = call(store, ("loss",), slope, x, targets, weight)
    grads: dict[str, Leaves] = {}
    for block, pullback in zip(reversed(path), reversed(pullbacks), strict=True):
        parts = pullback(dy)
        dy = parts[-1]
        if block in trained:
            grads[block] = parts[0]
    return Gradient(metrics, grads, stats, done)


def _batch(
    store: Store, recipe: Recipe, state: State, fixed: Fixed, piece: Any
) -> tuple[Any, ...]:
    """What enters `recipe.start`, targets, weights, the step's key, steps done."""
    rows = NamedSharding(store.devices.mesh, PartitionSpec(AXIS))

    def function(piece, step, key):
        inputs, targets = dataset.labelled({}, piece, recipe.classes, recipe.augment)
        both = loss.enter(recipe, inputs), targets
        x, targets = jax.lax.with_sharding_constraint(both, rows)
        # On one device the numbers that a fused step draws.
        own = None if key is None else loss.step_key(key, step, 0, 0)
        return x, targets, own, step + 1

    key = fixed.key if recipe.backbone.drops else None
    name = ("batch", recipe.start is None, recipe.augment)
    *some, own, done = call(store, name, function, piece, state.step, key)
    return *some, piece["weight"], own, done


def vjp(
    store: Store,
    recipe: Recipe,
    block: str,
    trained: Leaves,
    own: BlockVariables,
    x: jax.Array,
    *,
    through: bool,
    weight: jax.Array | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Callable[[jax.Array], tuple[Any, ...]], Params]:
    """A block's output, its pullback, and its statistics after the batch.

    Masters `trained` replace its leaves. The pullback gives (gradients of `trained`, if
    there are any; gradient by `x`, if `through`). With `weight` `[B]` the block
    normalises by the batch.
    """
    name = _program(recipe, block, key)
    frozen = {path: leaf for path, leaf in own.params.items() if path not in trained}

    def function(trained, frozen, stats, x, weight, key):
        def forward(trained: Leaves, x: jax.Array) -> tuple[jax.Array, Params]:
            cast = {path: leaf.astype(recipe.dtype) for path, leaf in trained.items()}
            return _apply(recipe, name, {**frozen, **cast}, stats, x, weight, key)

        if not trained:
            return jax.vjp(lambda x: forward({}, x), x, has_aux=True)
        if not through:
            return jax.vjp(lambda leaves: forward(leaves, x), trained, has_aux=True)
        return jax.vjp(forward, trained, x, has_aux=True)

    arguments = (trained, frozen, own.stats, x, weight, key)
    form = _form(("vjp", name, tuple(trained), through), arguments)
    y, pull, stats = call(store, form, function, *arguments, whole_key=True)

    def pullback(dy: jax.Array) -> tuple[Any, ...]:
        # `pull` is a tree of residuals; its program belongs to `form`.
        name = (form, "pullback")
        return call(store, name, lambda f, dy: f(dy), pull, dy, whole_key=True)

    return y, pullback, stats


def call(
    store: Store,
    key: Any,
    function: Callable[..., Any],
    *arguments: Any,
    whole_key: bool = False,
) -> Any:
    """`function(*arguments)`, compiled once for each key and form of the arguments.

    With `whole_key`, the key tells the form.
    """
    key = key if whole_key else _form(key, arguments)
    program, flops = store.compiled.get(key) or program_store.compiled(
        store, key, jax.jit(function), arguments, split=False
    )
    store.spent["flops"] += flops
    result = program(*arguments)
    if store.devices.size > 1 and jax.default_backend() == "cpu":
        # Simulated devices share one pool of threads. Two programs that reduce over
        # devices, neither waiting for the other, can each hold half of the threads.
        jax.block_until_ready(result)
    return result


def _form(name: Any, arguments: Any) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    forms = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    return name, structure, forms


def _program(recipe: Recipe, block: str, key: jax.Array | None) -> str:
    """Whose program runs a block; what it drops depends on its place in the network."""
    return recipe.backbone.alike.get(block, block) if key is None else block


def _apply(
    recipe: Recipe,
    name: str,
    params: Leaves,
    stats: Params,
    x: jax.Array,
    weight: jax.Array | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Params]:
    order = (*recipe.backbone.blocks, None)
    wrapped = None if key is None else jax.random.wrap_key_data(key, impl=loss.RANDOM)
    y, after = recipe.backbone.apply(
        {name: trees.nest(params)}, {name: stats} if stats else {}, x,
        training=() if weight is None else (name,), weight=weight,
        start=name, stop=order[order.index(name) + 1], key=wrapped,
    )  # fmt: skip
    return y, after.get(name, {})
