"""Equations of a traced program: as they are, or with a tap among their operands.

A rule takes (equation, operands, which of these depend on what is trained) and returns
the output, a tap or an array; None where the equation is none of its kind.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from subtune_jax.core import jaxprs
from subtune_jax.sparse_step import operations
from subtune_jax.sparse_step.operations import Tap
from subtune_jax.sparse_step.products import How

CALLS = ("jit", "pjit", "closed_call")
CHECKPOINTS = ("remat2", "checkpoint")


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
