"""Reductions: what becomes of the gradients of many batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax import accumulate
from subtune_jax.accumulate import Measure
from subtune_jax.contracts import Params
from subtune_jax.devices import Devices
from subtune_jax.names import near

Loss = Callable[[Params, Any], jax.Array]
PER_EXAMPLE = "per_example_squares"
REDUCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {  # of one batch's gradient
    "abs_of_sum": lambda grad: grad,
    "sum_of_abs": jnp.abs,
    "sum_of_squares": jnp.square,
    PER_EXAMPLE: lambda squares: squares,  # summed over its examples
}


def sums(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    reduces: Sequence[str],
    where: Devices | None,
) -> Iterator[dict[str, Params]]:
    """The sums by reduction after each batch; `abs_of_sum` still has its signs.

    Arguments and errors are those of `scores.gradients`. Names are checked here and
    now, batches as they come.
    """
    for reduce in reduces:
        if reduce not in REDUCTIONS:
            raise ValueError(f"no reduce named {reduce!r}; {near(reduce, REDUCTIONS)}")
    if not reduces:
        raise ValueError(f"0 reduces; there are {', '.join(REDUCTIONS)}")
    start = {reduce: accumulate.zeros(params) for reduce in reduces}
    measure = _measure(loss_fn, tuple(start))
    return accumulate.stream(measure, start, params, batches, where)


def scores(total: dict[str, Params], where: Devices | None) -> dict[str, Params]:
    """What the sums say: the scores by reduction."""
    signed = "abs_of_sum"
    found = {
        reduce: jax.tree.map(jnp.abs, tree) if reduce == signed else tree
        for reduce, tree in total.items()
    }
    return accumulate.read(found, where)


def _measure(loss_fn: Loss, reduces: Sequence[str]) -> Measure:
    whole = set(reduces) != {PER_EXAMPLE}

    def squares(params: Params, example: Any) -> Params:
        return jax.tree.map(jnp.square, _wide(jax.grad(loss_fn)(params, example)))

    def local(params: Params, rows: Any, share: float) -> dict[str, Params]:
        found = {}
        if whole:
            grads = _wide(jax.grad(loss_fn)(params, rows))
            found["batch"] = jax.tree.map(lambda g: g * share, grads)
        if PER_EXAMPLE in reduces:
            found["examples"] = accumulate.add_examples(squares, params, rows)
        return found

    def parts(found: dict[str, Params]) -> dict[str, Params]:
        of = {reduce: "batch" for reduce in reduces} | {PER_EXAMPLE: "examples"}
        return {r: jax.tree.map(REDUCTIONS[r], found[of[r]]) for r in reduces}

    return Measure(local, parts)


def _wide(grads: Params) -> Params:
    return jax.tree.map(lambda grad: grad.astype(jnp.float32), grads)
