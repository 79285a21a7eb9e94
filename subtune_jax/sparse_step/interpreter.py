"""Taps: gradients of selected elements, taken where each weight gradient arises.

The loss is traced, and the equation that uses a selected leaf is replaced by one with
a gradient of its own: of the weight it returns the k selected numbers and nothing else
(`operations.py`). So at most one layer's dense gradient is alive, and none at all where
every output neuron has the same few selected inputs. It works for any model that JAX
can trace: NNX, Linen, or plain functions.

Sites are dense products, convolutions and table lookups, of the leaf itself or of the
leaf reshaped, transposed, cast, or multiplied by what is not trained. Anywhere else the
leaf's gradient is formed whole and gathered at once, and the log (level INFO) says so.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from subtune_jax.core import jaxprs
from subtune_jax.core.elements import Flat
from subtune_jax.sparse_step import operations, rules
from subtune_jax.sparse_step.operations import Tap

LOG = logging.getLogger(__name__)


class Gradient(NamedTuple):
    """What `gradient` returns.

    Attributes:
      output: of the function.
      whole: gradients of the whole leaves.
      few: path -> float32 gradients of the selected elements, shaped as positions.
      formed: paths of leaves whose gradient was formed whole before it was gathered,
        because they are used where there is no site.
    """

    output: Any
    whole: Any
    few: Flat
    formed: tuple[str, ...]


def gradient(
    function: Callable[..., tuple[jax.Array, Any]],
    whole: Any,
    partial: Mapping[str, jax.Array],
    positions: Mapping[str, jax.Array],
    *rest: Any,
) -> Gradient:
    """The gradient of the first output of `function(whole, partial, *rest)`.

    Args:
      function: returns a scalar and anything else.
      whole: a tree of arrays, differentiated as they are.
      partial: path -> an array of which elements are selected.
      positions: path -> their flat positions, int32, in a shape of `elements.arrange`.
      *rest: further arguments, not differentiated.
    """
    if not partial:
        slope = jax.value_and_grad(function, has_aux=True)
        (value, extra), whole = slope(whole, partial, *rest)
        return Gradient((value, extra), whole, {}, ())
    closed, shape = jax.make_jaxpr(function, return_shape=True)(whole, partial, *rest)
    names, still = sorted(partial), jax.tree.leaves(rest)
    formed: set[str] = set()

    def replay(whole: Any, probes: Flat) -> tuple[jax.Array, Any]:
        taps = [Tap(partial[p], probes[p], positions[p], p) for p in names]
        trained = [*jax.tree.leaves(whole), *taps]
        flags = [True] * len(trained) + [False] * len(still)
        inputs = [*trained, *still]
        outputs = _replay(closed.jaxpr, closed.consts, inputs, flags, formed)
        output = jax.tree.unflatten(jax.tree.structure(shape), outputs)
        return output[0], output

    probes = {p: jnp.zeros(where.shape, jnp.float32) for p, where in positions.items()}
    slope = jax.grad(replay, argnums=(0, 1), has_aux=True)
    (grads, few), output = slope(whole, probes)
    if formed:
        some = ", ".join(sorted(formed)[:3]) + (" ..." if len(formed) > 3 else "")
        count = len(formed)
        LOG.info("%d gradients are formed whole, then gathered: %s", count, some)
    return Gradient(output, grads, few, tuple(sorted(formed)))


def _replay(
    jaxpr: Any, consts: Any, inputs: Any, flags: list[bool], formed: set[str]
) -> list[jax.Array]:
    """Outputs of `jaxpr`, some of whose inputs are taps.

    Args:
      jaxpr: what is evaluated.
      consts: of its constants.
      inputs: arrays and taps.
      flags: of each input, whether it depends on what is trained.
      formed: paths are added that were not used in an operation.
    """
    trained = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for equation in jaxpr.eqns:
        atoms = [v for v in equation.invars if not isinstance(v, core.Literal)]
        if not trained.isdisjoint(atoms):
            trained.update(equation.outvars)

    def opened(value: Any) -> Any:
        """A tap as an array that may be used anywhere."""
        if not isinstance(value, Tap):
            return value
        formed.add(value.path)
        return operations.whole(value)

    def tapped(equation: Any, values: list[Any]) -> list[Any]:
        name = equation.primitive.name
        moved = [type(v) is not core.Literal and v in trained for v in equation.invars]

        def inside(*values: Any) -> list[jax.Array]:
            return _replay(*jaxprs.inner(equation), values, moved, formed)

        if name in rules.CALLS:
            return inside(*values)
        if name in rules.CHECKPOINTS:
            keep = {key: equation.params[key] for key in ("policy", "prevent_cse")}
            return jax.checkpoint(inside, **keep)(*values)
        rule = rules.RULES.get(name)
        output = None if rule is None else rule(equation, values, moved)
        if output is not None:
            return [output]
        return jaxprs.evaluate(equation, [opened(value) for value in values])

    outputs = jaxprs.replay(jaxpr, consts, inputs, Tap, tapped)
    return [opened(value) for value in outputs]
