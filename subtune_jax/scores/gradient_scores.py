"""Scores from gradients: what becomes of the gradients of many batches.

Every function returns a tree like `params`, of float32 whatever the parameters' type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import Devices
from subtune_jax.core.registry import near
from subtune_jax.scores import accumulate
from subtune_jax.scores.accumulate import Measure

Loss = Callable[[Params, Any], jax.Array]
PER_EXAMPLE = "per_example_squares"
REDUCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {  # of one batch's gradient
    "abs_of_sum": lambda grad: grad,
    "sum_of_abs": jnp.abs,
    "sum_of_squares": jnp.square,
    PER_EXAMPLE: lambda squares: squares,  # summed over its examples
}


def gradient(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    reduce: str,
    devices: Devices | None = None,
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
      devices: that share the rows of each batch; see `gradients`.

    Raises:
      ValueError: unknown `reduce`, no batches, or rows that do not divide over the
        devices.

    Source: what each paper's released code accumulates. GPS (arXiv:2312.10136) does
    so with a contrastive loss on features, FISH (arXiv:2111.09839) with the label's
    loss, DPS (arXiv:2211.01642) while it trains.
    """
    return gradients(loss_fn, params, batches, (reduce,), devices)[reduce]


def gradients(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    reduces: Sequence[str],
    devices: Devices | None = None,
) -> dict[str, Params]:
    """Several reductions of the same gradients, from one pass over `batches`.

    The gradient of each batch is computed once for all of them. Those of its examples
    are computed besides where `per_example_squares` is asked for: their mean is the
    batch's gradient up to rounding at best, and not for a loss that couples rows.

    On several devices each differentiates the loss of its rows, and one sum a batch
    over the devices comes before anything is squared. The numbers are those of one
    device up to rounding if the loss is a mean over rows, in which no row takes part
    in another's term. The contrastive loss of GPS is none: it would contrast each
    image with those of its own device only, another score.

    Args:
      loss_fn: as in `gradient`; a mean over rows for several devices.
      params: as in `gradient`.
      batches: as in `gradient`.
      reduces: names of `gradient`'s table, at least one.
      devices: that share the rows of each batch, of `core.devices.choose`; the
        scores come back as NumPy arrays. None for the default device.

    Returns:
      A dict from each name of `reduces` to its scores.

    Raises:
      ValueError: as in `gradient`, or there are no `reduces`.
    """
    sums = sums_by_batch(loss_fn, params, batches, reduces, devices)
    scores = reduced(accumulate.last(sums), devices)
    return {reduce: scores[reduce] for reduce in reduces}  # jit sorted the keys


def snip(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    devices: Devices | None = None,
) -> Params:
    """Connection sensitivity: `abs(w * sum_b g_b)`, in float32.

    Arguments and errors are those of `gradient`.

    Source: SNIP (Lee et al., arXiv:1810.02340), which prunes a new network by one
    batch and divides by the sum over the network; that changes no rank.
    """
    return jax.tree.map(jnp.abs, movement(loss_fn, params, batches, devices))


def movement(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    devices: Devices | None = None,
) -> Params:
    """`-w * sum_b g_b`, in float32: positive where a step would enlarge the weight.

    Arguments and errors are those of `gradient`.

    Source: movement pruning (Sanh et al., arXiv:2005.07683), which adds up
    `-w_t * g_t` along training, as both move; here the weights are those of the base.
    """
    sums = sums_by_batch(loss_fn, params, batches, ("abs_of_sum",), devices)
    total = accumulate.read(accumulate.last(sums), devices)["abs_of_sum"]
    return jax.tree.map(lambda w, g: -jnp.asarray(w, jnp.float32) * g, params, total)


def sums_by_batch(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    reduces: Sequence[str],
    where: Devices | None,
) -> Iterator[dict[str, Params]]:
    """The sums by reduction after each batch; `abs_of_sum` still has its signs.

    Arguments and errors are those of `gradients`. Names are checked here and
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


def reduced(total: dict[str, Params], where: Devices | None) -> dict[str, Params]:
    """What the sums say: the scores by reduction."""
    signed = "abs_of_sum"
    scores = {
        reduce: jax.tree.map(jnp.abs, tree) if reduce == signed else tree
        for reduce, tree in total.items()
    }
    return accumulate.read(scores, where)


def _measure(loss_fn: Loss, reduces: Sequence[str]) -> Measure:
    whole = set(reduces) != {PER_EXAMPLE}

    def squares(params: Params, example: Any) -> Params:
        return jax.tree.map(jnp.square, _wide(jax.grad(loss_fn)(params, example)))

    def local(params: Params, rows: Any, share: float) -> dict[str, Params]:
        sums = {}
        if whole:
            grads = _wide(jax.grad(loss_fn)(params, rows))
            sums["batch"] = jax.tree.map(lambda g: g * share, grads)
        if PER_EXAMPLE in reduces:
            sums["examples"] = accumulate.add_examples(squares, params, rows)
        return sums

    def parts(sums: dict[str, Params]) -> dict[str, Params]:
        of = {reduce: "batch" for reduce in reduces} | {PER_EXAMPLE: "examples"}
        return {r: jax.tree.map(REDUCTIONS[r], sums[of[r]]) for r in reduces}

    return Measure(local, parts)


def _wide(grads: Params) -> Params:
    return jax.tree.map(lambda grad: grad.astype(jnp.float32), grads)
