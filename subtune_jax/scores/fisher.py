"""The Fisher information with the model's own labels, element by element."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import Devices
from subtune_jax.scores import accumulate
from subtune_jax.scores.accumulate import Measure


def fisher_expected(
    logits_fn: Callable[[Params, Any], jax.Array],
    params: Params,
    batches: Iterable[Any],
    devices: Devices | None = None,
) -> Params:
    """The diagonal of the Fisher information, summed over examples, in float32.

    `sum_i sum_c p_ic (d log p_ic / dw)^2`, with `p_i` the softmax of the logits of
    example i in float32: each class counts as its label as often as the model says.
    The sum with the true labels alone is `scores.gradient` of the label's loss with
    `per_example_squares`, the empirical Fisher information.

    Each example costs one forward pass and C backward passes.

    Args:
      logits_fn: (params, batch) -> logits `[B, C]`; called with batches of one row.
      params: nested dict of arrays; differentiated in their own type.
      batches: trees of arrays with a leading axis; an iterator is read once.
      devices: that share the rows of each batch; see `scores.gradients`.

    Raises:
      ValueError: no batches, or rows that do not divide over the devices.

    Source: the `expect` variant in the released code of FISH mask (Sung et al.,
    arXiv:2111.09839); its paper defines this sum and then uses the empirical one.
    """

    def squares(params: Params, example: Any) -> Params:
        def log_p(params: Params) -> jax.Array:
            logits = logits_fn(params, example).astype(jnp.float32)
            return jax.nn.log_softmax(logits)[0]

        logs, pullback = jax.vjp(log_p, params)

        def add_class(total: Params, c: jax.Array) -> tuple[Params, None]:
            grads = pullback(jax.nn.one_hot(c, len(logs)))[0]
            p = jnp.exp(logs[c])

            def plus(t: jax.Array, grad: jax.Array) -> jax.Array:
                return t + p * jnp.square(grad.astype(t.dtype))

            return jax.tree.map(plus, total, grads), None

        classes = jnp.arange(len(logs))
        return jax.lax.scan(add_class, accumulate.zeros(params), classes)[0]

    def local(params: Params, rows: Any, share: float) -> Params:
        del share  # a sum over examples, not a mean
        return accumulate.add_examples(squares, params, rows)

    start = accumulate.zeros(params)
    sums = accumulate.stream(Measure(local), start, params, batches, devices)
    return accumulate.read(accumulate.last(sums), devices)
