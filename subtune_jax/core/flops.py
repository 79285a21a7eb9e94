"""What a step must cost: floating-point operations counted from the network itself.

The forward function is traced and its operations counted. Back-propagation needs,
for every product (dense layer or convolution), one more product of the same size
for each operand that depends on what is trained: the weight, if it is trained, and
the input, if anything below it is. Products by a constant need none.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

SIMPLE = {  # forward operations an output element; backward ones a dependent operand
    **dict.fromkeys(("add", "sub", "add_any"), (1, 0)),
    **dict.fromkeys(("mul", "max", "min", "clamp", "select_n"), (1, 1)),
    **dict.fromkeys(("div", "integer_pow", "square", "sqrt"), (1, 2)),
    **dict.fromkeys(("exp", "log", "rsqrt", "tanh", "erf", "logistic"), (0, 2)),
}
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
REDUCTIONS = ("reduce_sum", "reduce_max", "argmax", "reduce_min")


class Operations(NamedTuple):
    """Floating-point operations of one call: forward, and its gradient."""

    forward: float
    backward: float


def needed(function: Callable[..., Any], trained: Any, *rest: Any) -> Operations:
    """What `function(trained, *rest)` and its gradient in `trained` need.

    Args:
      function: of trees of arrays.
      trained: what is differentiated.
      *rest: other arguments, not differentiated.
    """
    closed = jax.make_jaxpr(function)(trained, *rest)
    count = len(jax.tree.leaves(trained))
    flags = [i < count for i in range(len(closed.jaxpr.invars))]
    forward, backward, _ = _walk(closed.jaxpr, flags)
    return Operations(forward, backward)


def all_reduced(text: str) -> int:
    """Bytes that the all-reduces of a compiled program, as text, move; one device."""
    total = 0
    for line in text.splitlines():
        if re.search(r"= .* all-reduce(-start)?\(", line):
            result = line.split("=", 1)[1].split("all-reduce")[0]
            for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", result):
                shape = [int(size) for size in dims.split(",") if size]
                total += BYTES[kind] * math.prod(shape)
    return total


def _walk(jaxpr: Any, flags: list[bool]) -> tuple[float, float, list[bool]]:
    """(forward, backward, whether each output depends on a flagged input)."""
    depends = dict(zip(jaxpr.invars, flags, strict=True))
    forward = backward = 0.0
    uses: dict[Any, int] = {}
    for equation in jaxpr.eqns:
        inputs = [_depends(depends, v) for v in equation.invars]
        for variable, tainted in zip(equation.invars, inputs, strict=True):
            if tainted:  # a second use means that two gradients are added
                backward += uses.get(variable, 0) and _size(variable)
                uses[variable] = 1
        ahead, back, outputs = _equation(equation, inputs)
        forward, backward = forward + ahead, backward + back
        depends.update(zip(equation.outvars, outputs, strict=True))
    return forward, backward, [_depends(depends, v) for v in jaxpr.outvars]


def _equation(equation: Any, inputs: list[bool]) -> tuple[float, float, list[bool]]:
    name, tainted = equation.primitive.name, any(inputs)
    outputs = [tainted and _floats(v) for v in equation.outvars]
    inner = _inner(equation)
    if inner is not None:
        own = inputs[-len(inner.invars) :] if inner.invars else []
        return _walk(inner, own)
    size = _size(equation.outvars[0])
    if name in ("dot_general", "conv_general_dilated"):
        work = 2.0 * size * _contracted(equation)
        return work, work * sum(inputs[:2]), outputs
    if not _floats(equation.outvars[0]) and name != "argmax":
        return 0.0, 0.0, [False] * len(equation.outvars)
    if name in REDUCTIONS:
        return float(_size(equation.invars[0])), 0.0, outputs
    if name == "broadcast_in_dim":
        grown = size > _size(equation.invars[0])
        return 0.0, float(size * tainted * grown), outputs
    if name == "stop_gradient":
        return 0.0, 0.0, [False]
    ahead, back = SIMPLE.get(name, (0, 0))
    return float(size * ahead), float(size * back * sum(inputs)), outputs


def _inner(equation: Any) -> Any:
    """The jaxpr inside a call; of a choice of platform, the last branch.

    That is the native form: one convolution, counted as what it computes.
    """
    parameters = equation.params
    if "branches" in parameters:
        return parameters["branches"][-1].jaxpr
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in parameters:
            found = parameters[key]
            return found.jaxpr if isinstance(found, core.ClosedJaxpr) else found
    return None


def _contracted(equation: Any) -> float:
    """Multiply-adds for each element of the output of a product."""
    if equation.primitive.name == "dot_general":
        (axes, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return float(np.prod([shape[axis] for axis in axes]))
    kernel = equation.invars[1].aval.shape
    out_axis = equation.params["dimension_numbers"].rhs_spec[0]
    return float(np.prod(kernel)) / kernel[out_axis]


def _depends(depends: dict[Any, bool], variable: Any) -> bool:
    return not isinstance(variable, core.Literal) and depends.get(variable, False)


def _size(variable: Any) -> int:
    return int(np.prod(variable.aval.shape))


def _floats(variable: Any) -> bool:
    return np.issubdtype(variable.aval.dtype, np.inexact)
