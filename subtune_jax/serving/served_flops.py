"""What a server's program does for a batch, in floating-point operations, as traced."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from subtune_jax.core import flops
from subtune_jax.core.contracts import HEAD
from subtune_jax.serving import server_program
from subtune_jax.serving.layouts import Server


def count(server: Server, asked: Mapping[str, np.ndarray], size: int) -> float:
    """Operations that answer `asked`.

    Args:
      server: the tasks.
      asked: as in `server_program.assign`: one task at least, and not the base.
      size: images of the batch, as many as need no padding; texts as long as can be.
    """
    layout, base = server.layout, server.base
    tiles, _ = server_program.assign(server, asked, size)
    kind = np.uint8 if layout.backbone.encode is None else np.int32
    images = jax.ShapeDtypeStruct((size, *layout.backbone.input_shape), kind)
    arguments = base, server.stacks.leaves, images, tiles
    # This counts loops as nothing, and the base down to the head, asked or not ...
    total = flops.needed(layout.answer, *arguments).forward
    # ... of which only what leads to the last fork asked is run.
    last = layout.forks[np.searchsorted(tiles.stops, tiles.stops[-1])]
    whole = server_program.variables(base)
    above = server_program.segment(layout.backbone, None, last)
    below = server_program.segment(layout.backbone, last, HEAD)
    total -= flops.needed(below, whole, jax.eval_shape(above, whole, images)).forward
    bodies = _loops(jax.make_jaxpr(layout.answer)(*arguments).jaxpr)
    for body, turns in zip(bodies, np.diff(tiles.stops, prepend=0), strict=True):
        once = flops.needed(core.jaxpr_as_fun(body), *body.in_avals).forward
        total += int(turns) * once
    return total


def _loops(jaxpr: Any) -> list[Any]:
    """Bodies of the outermost loops, in order."""
    bodies = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            bodies.append(equation.params["body_jaxpr"])
            continue
        for inner in core.jaxprs_in_params(equation.params):
            bodies += _loops(inner)
    return bodies
