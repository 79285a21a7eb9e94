"""The jaxpr interpreter: gradients of selected elements, taken where they arise.

The loss is traced, and the equation that uses a selected leaf is replaced by one with
a gradient of its own: of the weight it returns the k selected numbers and nothing else
(`operations.py`). So at most one layer's dense gradient is alive, and none at all where
every output neuron has the same few selected inputs. It works for any model that JAX
can trace: NNX, Linen, or plain functions.

Operations are dense products, convolutions and table lookups, of the leaf itself or of
the leaf reshaped, transposed, cast, or multiplied by what is not trained. Anywhere else
its gradient is formed whole and gathered at once, and the log (level INFO) says so.
`RULES` says what each equation does to a selected leaf (a `Tap`) on its way.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from subtune_jax.core import jaxprs
from subtune_jax.core.trees import Flat
from subtune_jax.sparse_step import operations
from subtune_jax.sparse_step.operations import Tap
from subtune_jax.sparse_step.products import How

LOG = logging.getLogger(__name__)
CALLS = ("jit", "pjit", "closed_call")
CHECKPOINTS = ("remat2", "checkpoint")


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
      positions: path -> their flat positions, int32, in a shape of `trees.arrange`.
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

        if name in CALLS:
            return inside(*values)
        if name in CHECKPOINTS:
            keep = {key: equation.params[key] for key in ("policy", "prevent_cse")}
            return jax.checkpoint(inside, **keep)(*values)
        rule = RULES.get(name)
        output = None if rule is None else rule(equation, values, moved)
        if output is not None:
            return [output]
        return jaxprs.evaluate(equation, [opened(value) for value in values])

    outputs = jaxprs.replay(jaxpr, consts, inputs, Tap, tapped)
    return [opened(value) for value in outputs]


# A rule takes (equation, operands, which of them depend on what is trained). It returns
# the output, a tap or an array; None where the equation is none of its kind.


def _multiplied(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    tap, other = (a, b) if isinstance(a, Tap) else (b, a)
    trained = isinstance(other, Tap) or moved[0 if tap is b else 1]
    if trained or equation.outvars[0].aval.shape != tap.value.shape:
        return None
    return operations.scale(tap, jnp.asarray(other))


def _dense(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    (ours, theirs), batch = equation.params["dimension_numbers"]
    if isinstance(a, Tap) == isinstance(b, Tap) or batch[0]:
        return None
    precision, kind = equation.params["precision"], equation.outvars[0].aval.dtype
    if isinstance(b, Tap):
        return operations.dense(b, a, (ours, theirs), How(moved[0], precision, kind))
    y = operations.dense(a, b, (theirs, ours), How(moved[1], precision, kind))
    free = b.ndim - len(theirs)  # the weight's axes come first in the equation
    return y.transpose(*range(free, y.ndim), *range(free))


def _convolution(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    a, b = values
    if isinstance(a, Tap):
        return None
    convolve = functools.partial(_bound, equation)
    return operations.convolution(b, a, convolve, moved[0])


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
    return operations.lookup(table, ids, functools.partial(_bound, equation), clip)


def _bound(equation: Any, *values: Any) -> jax.Array:
    return jaxprs.evaluate(equation, list(values))[0]


def _moved(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    """The same elements in the same order, under another shape or type."""
    tap, after = values[0], equation.outvars[0].aval
    kept = isinstance(tap, Tap) and tap.value.size == after.size
    if not kept or len(values) > 1 or not jnp.issubdtype(after.dtype, jnp.floating):
        return None
    value = tap.value.reshape(after.shape).astype(after.dtype)
    return dataclasses.replace(tap, value=value)


def _transposed(equation: Any, values: list[Any], moved: list[bool]) -> Any:
    return operations.transpose(values[0], equation.params["permutation"])


RESHAPES = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "slice")
RULES: dict[str, Callable[[Any, list[Any], list[bool]], Any]] = {
    **dict.fromkeys((*RESHAPES, "convert_element_type"), _moved),
    "transpose": _transposed,
    "mul": _multiplied,
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _lookup,
}
