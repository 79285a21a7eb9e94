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
        moving = [*jax.tree.leaves(whole), *taps]
        flags = [True] * len(moving) + [False] * len(still)
        inputs = [*moving, *still]
        outputs, _ = _replay(closed.jaxpr, closed.consts, inputs, flags, formed)
        output = jax.tree.unflatten(jax.tree.structure(shape), outputs)
        return output[0], output

    probes = {p: jnp.zeros(where.shape, jnp.float32) for p, where in positions.items()}
    slope = jax.grad(replay, argnums=(0, 1), has_aux=True)
    (grads, few), output = slope(whole, probes)
    if formed:
        LOG.info(
            "%d gradients are formed whole, then gathered: %s",
            len(formed),
            _some(formed),
        )
    return Gradient(output, grads, few, tuple(sorted(formed)))


def _some(paths: set[str]) -> str:
    first = ", ".join(sorted(paths)[:3])
    return first if len(paths) <= 3 else f"{first} ..."


def _replay(
    jaxpr: Any, consts: Any, inputs: Any, flags: Any, formed: set[str]
) -> tuple[list[jax.Array], list[bool]]:
    """Outputs of `jaxpr`, some of whose values are taps; whether each of them moves.

    Args:
      jaxpr: what is evaluated.
      consts: of its constants.
      inputs: arrays and taps.
      flags: of each input, whether it depends on what is trained.
      formed: paths are added that were not used at a site.
    """
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)
    moves = dict.fromkeys(jaxpr.constvars, False)
    moves |= zip(jaxpr.invars, flags, strict=True)

    def read(atom: Any) -> tuple[Any, bool]:
        if isinstance(atom, core.Literal):
            return atom.val, False
        return known[atom], moves[atom]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        values, moved = [value for value, _ in given], [flag for _, flag in given]
        if any(isinstance(value, Tap) for value in values):
            outputs, moving = _tapped(equation, values, moved, formed)
        else:
            outputs, moving = jaxprs.evaluate(equation, values), any(moved)
        known |= zip(equation.outvars, outputs, strict=True)
        moves |= dict.fromkeys(equation.outvars, moving)
    found = [read(atom) for atom in jaxpr.outvars]
    return [_opened(value, formed) for value, _ in found], [flag for _, flag in found]


def _opened(value: Any, formed: set[str]) -> Any:
    """A tap as an array that may be used anywhere."""
    if not isinstance(value, Tap):
        return value
    formed.add(value.path)
    return operations.whole(value)


def _tapped(
    equation: Any, values: list[Any], moved: list[bool], formed: set[str]
) -> tuple[list[Any], bool]:
    """An equation of which at least one operand is a tap; whether its outputs move."""
    name, flags = equation.primitive.name, []

    def inside(*values: Any) -> list[jax.Array]:
        jaxpr, consts = jaxprs.inner(equation)
        outputs, found = _replay(jaxpr, consts, values, moved, formed)
        flags.extend(found)
        return outputs

    if name in rules.CALLS:
        return inside(*values), any(flags)
    if name in rules.CHECKPOINTS:
        keep = {key: equation.params[key] for key in ("policy", "prevent_cse")}
        return jax.checkpoint(inside, **keep)(*values), any(flags)
    rule = rules.RULES.get(name)
    output = None if rule is None else rule(equation, values, moved)
    if output is not None:
        return [output], True
    whole = [_opened(value, formed) for value in values]
    return jaxprs.evaluate(equation, whole), True
