"""Scores: how much each element seems to matter; higher is better.

Every function returns a tree like `params`, of float32 whatever the parameters' type.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import trees
from subtune_jax.contracts import Params
from subtune_jax.names import near

PER_EXAMPLE = "per_example_squares"
REDUCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "abs_of_sum": lambda grad: grad,
    "sum_of_abs": jnp.abs,
    "sum_of_squares": jnp.square,
    PER_EXAMPLE: jnp.square,
}


def gradient(
    loss_fn: Callable[[Params, Any], jax.Array],
    params: Params,
    batches: Iterable[Any],
    reduce: str,
) -> Params:
    """Gradients over `batches`, reduced to one number per element, in float32.

    With `g_b` the gradient of batch b and `g_i` that of example i:

    | reduce | score | who |
    |---|---|---|
    | `abs_of_sum` | `abs(sum_b g_b)` | GPS, SAM (AAAI 2023), SpIEL's growth |
    | `sum_of_abs` | `sum_b abs(g_b)` | SMT; SIFT, of one batch |
    | `sum_of_squares` | `sum_b g_b^2` | Child-Tuning-D, SPT, DPS |
    | `per_example_squares` | `sum_i g_i^2` | FISH mask |

    They rank differently. The first lets opposite gradients cancel; the third and
    fourth differ by far more than a factor, since a batch averages before it squares:
    papers that call both Fisher information do not compute the same thing.

    Args:
      loss_fn: (params, batch) -> scalar. For `per_example_squares` it is called with
        batches of one example: arrays with a leading axis of length 1.
      params: nested dict of arrays; differentiated in their own type.
      batches: trees of arrays with a leading axis; an iterator is read once, a batch
        at a time. A new batch shape compiles anew.
      reduce: one of the four above.

    Raises:
      ValueError: unknown `reduce`, or no batches.

    Source: what each paper's released code accumulates. GPS (arXiv:2312.10136) does
    so with a contrastive loss on features, FISH (arXiv:2111.09839) with the label's
    loss, DPS (arXiv:2211.01642) while it trains.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"no reduce named {reduce!r}; {near(reduce, REDUCTIONS)}")
    add = jax.jit(_accumulate(loss_fn, reduce), donate_argnums=0)
    total = jax.tree.map(lambda p: jnp.zeros(np.shape(p), jnp.float32), params)
    empty = True
    for batch in batches:
        total, empty = add(total, params, batch), False
    if empty:
        raise ValueError("gradient scores of 0 batches; at least one is needed")
    return jax.tree.map(jnp.abs, total) if reduce == "abs_of_sum" else total


def magnitude(params: Params) -> Params:
    """`abs(params)`."""
    return jax.tree.map(lambda p: np.abs(np.asarray(p, np.float32)), params)


def random(params: Params, seed: int) -> Params:
    """Uniform scores in [0, 1), the same for a seed, a path and a shape.

    A leaf's scores do not depend on the other leaves. Of 86 M draws of 24 bits about
    five are equal to any one of them, so ties do not bias a choice.
    """

    def draw(path: str, leaf: Any) -> np.ndarray:
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        return rng.random(np.shape(leaf), np.float32)

    return trees.map_leaves(draw, params)


def _accumulate(loss_fn: Callable[[Params, Any], jax.Array], reduce: str) -> Any:
    part = REDUCTIONS[reduce]

    def plus(total: Params, grads: Params) -> Params:
        return jax.tree.map(lambda t, g: t + part(g.astype(t.dtype)), total, grads)

    def add(total: Params, params: Params, batch: Any) -> Params:
        return plus(total, jax.grad(loss_fn)(params, batch))

    def add_examples(total: Params, params: Params, batch: Any) -> Params:
        # One at a time: XLA's CPU products of a vmapped batch of one took four to
        # fifteen times as long (131 k parameters and more), and B gradients of memory.
        def one(total: Params, example: Any) -> tuple[Params, None]:
            return add(total, params, example), None

        single = jax.tree.map(lambda x: jnp.expand_dims(x, 1), batch)
        return jax.lax.scan(one, total, single)[0]

    return add_examples if reduce == PER_EXAMPLE else add
