"""Activations: weights by what they multiply, found in the traced function itself.

The function is traced, and every product of a leaf and its input is evaluated once
more as a probe: with the input's size in place of the input, summed over all outputs.
The slope of that sum by an element of the leaf is the sum of the sizes of what the
element multiplies, for dense products and convolutions of any layout.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from subtune_jax.core import jaxprs, registry, trees
from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import Devices
from subtune_jax.scores import accumulate
from subtune_jax.scores.accumulate import Measure

Size = Callable[[jax.Array], jax.Array]
SIZES: dict[str, Size] = {"mean": jnp.abs, "l2": jnp.square}
PRODUCTS = ("dot_general", "conv_general_dilated")
EXACT = (jax.lax.Precision.HIGHEST,) * 2
LAYOUTS = ("reshape", "transpose", "squeeze")
CALLS = (
    "jit", "pjit", "remat2", "closed_call", "custom_jvp_call", "custom_vjp_call",
)  # fmt: skip


def activation(
    function: Callable[[Params, Any], Any],
    params: Params,
    batches: Iterable[Any],
    norm: str = "mean",
    devices: Devices | None = None,
) -> Params:
    """Each weight's magnitude times the size of its inputs, in float32; no gradients.

    Args:
      function: (params, batch) -> anything that takes the network's outputs: the
        logits, or a loss. It is traced, and its products are looked up.
      params: nested dict of arrays.
      batches: trees of arrays with a leading axis; an iterator is read once.
      norm: `"mean"`, of `abs(x)` over all rows and positions where the element is
        used; or `"l2"`, `sqrt(sum x^2)` over them. Padding is no use.
      devices: that share the rows of each batch; see `scores.gradients`.

    Returns:
      A tree like `params`. A leaf has inputs if it enters a product as it is,
      reshaped, transposed or cast. All others, such as biases, norms and tables, are
      NaN, which `choose` refuses: choose among kernels.

    Raises:
      ValueError: unknown `norm`, no batches, rows that do not divide over the devices,
        or a leaf is used inside a loop or a branch, where it is not followed.

    Source: `"mean"` is the score of FPS (arXiv:2510.27359), as its abstract states it;
    `"l2"` is Wanda's (arXiv:2306.11695), which compares within an output neuron.
    """
    registry.check_choice("activation norm", norm, SIZES)
    named = jax.tree.leaves(trees.map_leaves(lambda path, _: path, params))

    def local(params: Params, rows: Any, share: float) -> dict[str, Params]:
        del share  # sums over rows, not means
        closed = jax.make_jaxpr(function)(params, rows)

        def probe(wide: Params, size: Size) -> jax.Array:
            three = zip(*map(jax.tree.leaves, (params, wide)), named, strict=True)
            inputs = [_Value(*each) for each in three]
            inputs += map(_Value, jax.tree.leaves(rows))
            return _evaluate(closed.jaxpr, closed.consts, inputs, size)[1]

        slope, wide = jax.grad(probe), accumulate.zeros(params)
        sizes, uses = slope(wide, SIZES[norm]), slope(wide, jnp.ones_like)
        return {"sizes": sizes, "uses": uses}

    def score(w: Any, sizes: Any, uses: Any) -> jax.Array:
        each = jnp.sqrt(sizes) if norm == "l2" else sizes / jnp.maximum(uses, 1)
        product = jnp.abs(jnp.asarray(w, jnp.float32)) * each
        return jnp.where(uses.any(), product, jnp.nan)

    start = {"sizes": accumulate.zeros(params), "uses": accumulate.zeros(params)}
    sums = accumulate.stream(Measure(local), start, params, batches, devices)
    total = accumulate.read(accumulate.last(sums), devices)
    return jax.tree.map(score, params, total["sizes"], total["uses"])


class _Value(NamedTuple):
    """An array; if it is a leaf, also that leaf in float32, laid out as the array."""

    array: Any
    leaf: Any = None
    path: str = ""


def _evaluate(
    jaxpr: Any, consts: Any, inputs: list[_Value], size: Size
) -> tuple[list[_Value], Any]:
    """Outputs of `jaxpr`, and the sum of its probes."""
    known = dict(zip(jaxpr.constvars, map(_Value, consts), strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> _Value:
        return _Value(atom.val) if isinstance(atom, core.Literal) else known[atom]

    total: Any = 0.0
    for equation in jaxpr.eqns:
        outputs, more = _step(equation, list(map(read, equation.invars)), size)
        known |= zip(equation.outvars, outputs, strict=True)
        total += more
    return list(map(read, jaxpr.outvars)), total


def _step(
    equation: Any, operands: list[_Value], size: Size
) -> tuple[list[_Value], Any]:
    name = equation.primitive.name
    leaves = [value for value in operands if value.leaf is not None]
    if leaves and name in CALLS:
        return _evaluate(*jaxprs.inner(equation), operands, size)
    if leaves and _programs(equation):
        used = f"{leaves[0].path!r} is used in a {name}"
        raise ValueError(f"{used}; only inputs outside loops and branches can be read")
    arrays = [value.array for value in operands]
    outputs = list(map(_Value, jaxprs.evaluate(equation, arrays)))
    if leaves and name in PRODUCTS:
        return outputs, _probe(equation, operands, size)
    if leaves and name == "convert_element_type":
        return [outputs[0]._replace(leaf=leaves[0].leaf, path=leaves[0].path)], 0.0
    if leaves and name in LAYOUTS:
        laid = equation.primitive.bind(leaves[0].leaf, **equation.params)
        return [outputs[0]._replace(leaf=laid, path=leaves[0].path)], 0.0
    return outputs, 0.0


def _probe(equation: Any, operands: list[_Value], size: Size) -> Any:
    """The product of each operand that is a leaf with the other one's sizes, summed."""
    kinds = {"preferred_element_type": np.dtype(np.float32), "precision": EXACT}
    total: Any = 0.0
    for at in (0, 1):
        if operands[at].leaf is not None:
            pair = [size(jnp.asarray(operands[1 - at].array, jnp.float32))] * 2
            pair[at] = operands[at].leaf
            product = equation.primitive.bind(*pair, **(equation.params | kinds))
            total += jnp.sum(product)
    return total


def _programs(equation: Any) -> list[Any]:
    """The programs inside an equation: a loop's body, the branches of a condition."""
    kinds, flat = (core.Jaxpr, core.ClosedJaxpr), jax.tree.leaves(equation.params)
    return [value for value in flat if isinstance(value, kinds)]
