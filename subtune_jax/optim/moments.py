"""Moments of an optimiser under a mask that moves.

What becomes of the moments of an element when it is selected, is a choice with a name:

* `keep`: while an element is outside the mask its moments and its age rest; when it is
  selected again it goes on from there.
* `reset`: when it is selected its moments are zero and its age is 0.
* `seed`: when it is selected it starts as if its candidate gradients, T of them, had
  already been seen: by Adam's own formula for T equal gradients the first moment is
  `(1 - b1^T)` times their mean, the second `(1 - b2^T)` times the mean of their
  squares, and the age is T. So once corrected for bias the moments are these means.
  Source: SpIEL, arXiv:2401.16405, whose code seeds likewise and counts ages.

An element's age is the number of updates it had; Adam corrects for bias by it. Where
elements move as positions, those that stay selected carry their moments along; there is
no room for those of others, so `keep` is `reset` for elements that come back.

Moments are found by their form: in the state of a transformation over a flat dict of
values they are flat dicts of the same paths.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subtune_jax.core.method import Seeds
from subtune_jax.core.trees import Flat

POLICIES = ("keep", "reset", "seed")


class AgedState(NamedTuple):
    """State of `aged_adam`.

    Attributes:
      age: path -> int32, updates had: of one element each, or of the whole leaf.
      mu: first moments.
      nu: second moments.
    """

    age: Flat
    mu: Flat
    nu: Flat


def aged_adam(
    b1: float, b2: float, epsilon: float, shapes: Mapping[str, tuple[int, ...]]
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with an age for each element instead of one count.

    Its update takes `mask`, path -> booleans: outside it moments and ages rest. They do
    here and not in `rest`, so that what is written in place is all that is read again:
    else XLA copies every moment first.

    Args:
      b1: decay of the first moments.
      b2: decay of the second moments.
      epsilon: added to the root.
      shapes: path -> shape of its ages; `()`, one for all, where it is not named.
    """

    def init(params: Any) -> Any:
        age = {p: jnp.zeros(shapes.get(p, ()), jnp.int32) for p in params}
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AgedState(age, zeros, zeros)

    def update(
        updates: Any, state: Any, params: Any = None, *, mask: Any = None, **extra: Any
    ) -> Any:
        del params, extra
        mask = mask or {}
        age = {p: old + mask.get(p, 1) for p, old in state.age.items()}
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        mu |= {p: jnp.where(mask[p], mu[p], state.mu[p]) for p in mask}
        nu |= {p: jnp.where(mask[p], nu[p], state.nu[p]) for p in mask}
        found = {}
        for path, first in mu.items():
            first = first / _seen(b1, age[path])
            second = nu[path] / _seen(b2, age[path])
            found[path] = first / (jnp.sqrt(second) + epsilon)
        return found, AgedState(age, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def _seen(decay: float, age: jax.Array) -> jax.Array:
    """`1 - decay^age`, to float precision.

    By series where 1 - exp cancels: for so many ages XLA's expm1 takes four times as
    long, a fifth of the whole update.
    """
    x = age.astype(jnp.float32) * jnp.log(jnp.float32(decay))
    near = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5))))
    return jnp.where(x > -0.1, near, 1 - jnp.exp(x))


def fresh(
    state: Any,
    new: Mapping[str, jax.Array],
    policy: str,
    seeds: Seeds | None,
    decays: tuple[float, float],
) -> Any:
    """The state in which the elements that have just been selected begin.

    Args:
      state: of the transformation.
      new: path -> booleans, the elements selected by this step and not before.
      policy: see above.
      seeds: for `"seed"`.
      decays: b1 and b2 of Adam, for `"seed"`.
    """
    if policy == "keep":
        return state
    zeroed = each(state, lambda p, x: jnp.where(new[p], _zero(x), x), new)
    if policy == "reset" or seeds is None:
        return zeroed

    def seed(node: Any) -> Any:
        return _seeded(node, new, seeds, decays) if _aged(node) else node

    return jax.tree.map(seed, zeroed, is_leaf=_aged)


def _seeded(
    state: AgedState, new: Mapping[str, jax.Array], seeds: Seeds, decays: Any
) -> AgedState:
    weights = [_seen(decay, seeds.steps) for decay in decays]

    def mix(old: Flat, found: Mapping[str, jax.Array], weight: jax.Array) -> Flat:
        changed = {p: jnp.where(new[p], weight * found[p], old[p]) for p in new}
        return {**old, **changed}

    ages = {p: jnp.where(new[p], seeds.steps, state.age[p]) for p in new}
    return AgedState(
        {**state.age, **ages},
        mix(state.mu, seeds.first, weights[0]),
        mix(state.nu, seeds.second, weights[1]),
    )


def rest(before: Any, after: Any, mask: Mapping[str, jax.Array]) -> Any:
    """`after` where `mask` is true, `before` elsewhere; ages know of it already."""

    def visit(old: Any, new: Any) -> Any:
        if not isinstance(new, dict):
            return new
        held = {p: jnp.where(mask[p], new[p], old[p]) for p in _moments(new, mask)}
        return {**new, **held}

    def is_leaf(node: Any) -> bool:
        return _is_flat(node) or _aged(node)

    return jax.tree.map(visit, before, after, is_leaf=is_leaf)


def each(
    state: Any, function: Callable[[str, jax.Array], jax.Array], paths: Any
) -> Any:
    """The state with `function(path, moment)` for every moment of `paths`."""

    def visit(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        held = {path: function(path, node[path]) for path in _moments(node, paths)}
        return {**node, **held}

    return jax.tree.map(visit, state, is_leaf=_is_flat)


def _moments(node: Flat, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that the dict holds arrays of: hyperparameters are dicts too."""
    return [path for path in paths if hasattr(node.get(path), "shape")]


def _is_flat(node: Any) -> bool:
    return isinstance(node, dict)


def _aged(node: Any) -> bool:
    return isinstance(node, AgedState)


def _zero(x: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)
