"""Traced programs: one equation of them evaluated, and the program that a call runs."""

from typing import Any

from jax.extend import core

NAMELESS = core.DebugInfo("evaluate", "programs", None, None)


def inner(equation: Any) -> tuple[Any, Any]:
    """The jaxpr that a call runs, and its constants.

    Args:
      equation: of a `jit`, a checkpoint, or a function with its own derivative.
    """
    params = equation.params
    found = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return getattr(found, "jaxpr", found), getattr(found, "consts", ())


def evaluate(equation: Any, values: list[Any]) -> list[Any]:
    """The outputs of an equation: JAX evaluates a program of it alone."""
    atoms = zip(equation.invars, values, strict=True)
    given = {atom: v for atom, v in atoms if not isinstance(atom, core.Literal)}
    alone = core.Jaxpr(
        (), list(given), equation.outvars, [equation], equation.effects, NAMELESS
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())
