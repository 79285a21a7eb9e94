"""Traced programs: evaluated equation by equation, some of them in another way."""

from collections.abc import Callable
from typing import Any

from jax.extend import core

NAMELESS = core.DebugInfo("evaluate", "programs", None, None)


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
