"""Taps: gradients of selected elements, taken where each weight gradient arises.

The loss is traced, and the equation that uses a selected leaf is replaced by one with
a gradient of its own: of the weight it returns the k selected numbers and nothing else
(`sites.py`). So at most one layer's dense gradient is alive, and none at all where
every output neuron has the same few selected inputs. It works for any model that JAX
can trace: NNX, Linen, or plain functions.

Sites are dense products, convolutions and table lookups, of the leaf itself or of the
leaf reshaped, transposed, cast, or multiplied by what is not trained. Anywhere else the
leaf's gradient is formed whole and gathered at once, and the log (level INFO) says so.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from subtune_jax import sites
from subtune_jax.sites import Tap
from subtune_jax.sparse import Flat

LOG = logging.getLogger(__name__)
RESHAPES = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "slice")
NAMELESS = core.DebugInfo("replay", "taps", None, None)
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}


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
      positions: path -> their flat positions, int32 `[k]`, or `[O, K]`: K inputs of
        each of the O output neurons that the last axes are.
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
            outputs, moved = _tapped(equation, values, moved, formed)
        else:
            outputs, moved = _plain(equation, values), [any(moved)]
        known |= zip(equation.outvars, outputs, strict=True)
        moves |= dict.fromkeys(equation.outvars, any(moved))
    found = [read(atom) for atom in jaxpr.outvars]
    return [_opened(value, formed) for value, _ in found], [flag for _, flag in found]


def _plain(equation: Any, values: list[Any]) -> list[Any]:
    """An equation as it is: JAX evaluates a program of it alone."""
    atoms = zip(equation.invars, values, strict=True)
    given = {atom: v for atom, v in atoms if not isinstance(atom, core.Literal)}
    alone = core.Jaxpr(
        (), list(given), equation.outvars, [equation], equation.effects, NAMELESS
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def _opened(value: Any, formed: set[str]) -> Any:
    """A tap as an array that may be used anywhere."""
    if not isinstance(value, Tap):
        return value
    formed.add(value.path)
    return sites.whole(value)


def _tapped(
    equation: Any, values: list[Any], moved: list[bool], formed: set[str]
) -> tuple[list[Any], list[bool]]:
    """An equation of which at least one operand is a tap."""
    name, shape = equation.primitive.name, equation.outvars[0].aval.shape
    if name in CALLS:
        inner = equation.params[CALLS[name]]
        jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        return _replay(jaxpr, consts, values, moved, formed)
    first = values[0]
    if isinstance(first, Tap) and len(values) == 1:
        if name in RESHAPES and first.value.size == equation.outvars[0].aval.size:
            return [first._replace(value=first.value.reshape(shape))], [True]
        if name == "transpose":
            return [sites.transpose(first, equation.params["permutation"])], [True]
        if name == "convert_element_type":
            kind = equation.params["new_dtype"]
            return [first._replace(value=first.value.astype(kind))], [True]
    rule = RULES.get(name)
    output = None if rule is None else rule(equation, values, moved)
    if output is None:
        output = _plain(equation, [_opened(value, formed) for value in values])
        return output, [True]
    return [output], [True]


def _multiplied(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    tap, other = (a, b) if isinstance(a, Tap) else (b, a)
    trained = isinstance(other, Tap) or moved[0 if tap is b else 1]
    if trained or equation.outvars[0].aval.shape != tap.value.shape:
        return None
    return sites.scale(tap, jnp.asarray(other))


def _dense(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    (ours, theirs), batch = equation.params["dimension_numbers"]
    if isinstance(a, Tap) == isinstance(b, Tap) or batch[0]:
        return None
    kind = equation.outvars[0].aval.dtype
    if isinstance(b, Tap):
        return sites.dense(b, a, (ours, theirs), moved[0]).astype(kind)
    y = sites.dense(a, b, (theirs, ours), moved[1]).astype(kind)
    free = b.ndim - len(theirs)  # the weight's axes come first in the equation
    return y.transpose(*range(free, y.ndim), *range(free))


def _convolution(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    if isinstance(a, Tap):
        return None
    convolve = functools.partial(_bound, equation)
    return sites.convolution(b, a, convolve, moved[0])


def _lookup(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    table, ids = values
    numbers = equation.params["dimension_numbers"]
    if isinstance(ids, Tap) or table.value.ndim != 2:
        return None
    rows = (1, table.value.shape[1])
    simple = numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
    last = numbers.offset_dims == (len(equation.outvars[0].aval.shape) - 1,)
    if not simple or not last or equation.params["slice_sizes"] != rows:
        return None
    clip = equation.params["mode"] == lax.GatherScatterMode.CLIP
    return sites.lookup(table, ids, functools.partial(_bound, equation), clip)


def _bound(equation: Any, *values: Any) -> jax.Array:
    return _plain(equation, list(values))[0]


RULES = {
    "mul": _multiplied,
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _lookup,
}
