"""Programs: traced ones evaluated by the equation, compiled ones counted."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

NAMELESS = core.DebugInfo("evaluate", "jaxprs", None, None)


def replay(
    jaxpr: Any,
    consts: Any,
    inputs: Any,
    special: type,
    handle: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """The outputs of `jaxpr`.

    Args:
      jaxpr: what is evaluated.
      consts: values of its constants.
      inputs: arrays, or values of type `special`.
      special: a type of value that JAX does not know.
      handle: (equation, operands) -> its outputs, called where an operand is special.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)
    for equation in jaxpr.eqns:
        operands = []
        for atom in equation.invars:
            literal = isinstance(atom, core.Literal)
            operands.append(atom.val if literal else values[atom])
        if special in map(type, operands):
            outputs = handle(equation, operands)
        else:
            outputs = evaluate(equation, operands)
        values |= zip(equation.outvars, outputs, strict=True)
    return [a.val if isinstance(a, core.Literal) else values[a] for a in jaxpr.outvars]


def inner(equation: Any) -> tuple[Any, Any]:
    """The jaxpr that a call runs, and its constants.

    Args:
      equation: of a `jit`, a checkpoint, or a function with its own derivative.
    """
    params = equation.params
    called = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return getattr(called, "jaxpr", called), getattr(called, "consts", ())


def evaluate(equation: Any, values: list[Any]) -> list[Any]:
    """The outputs of an equation: JAX evaluates a program of it alone."""
    given = {}
    for atom, value in zip(equation.invars, values, strict=True):
        if not isinstance(atom, core.Literal):
            given[atom] = value
    alone = core.Jaxpr(
        (), list(given), equation.outvars, [equation], equation.effects, NAMELESS
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def counted(lowered: Any, compiled: Any, devices: int, *, split: bool) -> float:
    """Floating-point operations of a program on all devices, as XLA counts them.

    On a CPU those of what is compiled. Elsewhere of what it is compiled from: there the
    compiled program calls libraries, whose products XLA does not count (-1 for a
    convolution by cuDNN).

    Args:
      lowered: the program, a `jax.stages.Lowered`.
      compiled: the same, compiled.
      devices: their number.
      split: whether `lowered` is of one device's part, as inside `shard_map`.
    """
    stage, times = lowered, devices if split else 1
    if jax.default_backend() == "cpu":
        stage, times = compiled, devices
    return (stage.cost_analysis() or {}).get("flops", 0.0) * times
