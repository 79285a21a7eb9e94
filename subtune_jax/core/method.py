"""What a method sees, and what it answers: plain containers of arrays and functions.

`Selector` is the contract; `Seen`, `Moved`, `Seeds` and `Probe` are of methods that do
something during training. A dynamic mask is one that such a method moves. It moves as
booleans over whole leaves, which are its reach, or as positions in leaves.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core.contracts import Mask, Params


class Evidence(NamedTuple):
    """What a method may look at: the network and training data, nothing else.

    Attributes:
      params: all parameters, head included.
      blocks: block names from input to output, the last one `"head"`.
      loss_fn: (params, batch) -> scalar, differentiable.
      batches: n -> iterable of n training batches, the same at every call.
      seed: for methods that draw.
      epoch_batches: how many batches go once through the training examples.
      train_steps: of the run; 0 where nobody can tell.
      init: key -> random parameters of all blocks, host arrays; None likewise.
      features: (params, batch) -> `[B, D]`, what enters the head; None where nobody
        can tell, or the task is dense.
      views: n -> iterable of n batches of twice as many rows: every image in two
        views, each augmented anew, the first views before the second ones; None
        likewise.
    """

    params: Params
    blocks: tuple[str, ...]
    loss_fn: Callable[[Params, Any], jax.Array]
    batches: Callable[[int], Iterable[Mapping[str, Any]]]
    seed: int = 0
    epoch_batches: int = 1
    train_steps: int = 0
    init: Callable[[jax.Array], Params] | None = None
    features: Callable[[Params, Any], jax.Array] | None = None
    views: Callable[[int], Iterable[Mapping[str, Any]]] | None = None


class Additive(NamedTuple):
    """New small arrays that are trained, and how they merge into the base's leaves.

    Attributes:
      values: name -> float32 array to start from. A name is a leaf's path, `+` and what
        the array is: `block01/attn/query/kernel+a`.
      merge: (leaves, values), both by path, -> path -> the leaves of `paths` as the
        network uses them, of their old shapes. Pure, and made of operators and methods
        that NumPy and traced arrays share: training calls it inside the step, shipping
        on the host.
      paths: the leaves that `merge` returns, none of them the head's. What they hold is
        not trained unless a mask says so.
    """

    values: Mapping[str, np.ndarray]
    merge: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    paths: tuple[str, ...]


class Selection(NamedTuple):
    """Where a network may change, head aside: the head always may.

    On the host, as `init` returns it, `mask`, `extras` and `reach` are trees of
    booleans. Inside the compiled step, as `update` sees it, `mask` is flat: path ->
    what of that leaf moves now, for the leaves that `update` may change:

    * of a leaf in `reach` booleans of its shape, or one boolean for all of it;
    * else, of a leaf that `mask` selects in part, its positions: int32 `[k]`, sorted.

    Attributes:
      mask: what the method chose; of a dynamic method, what it chose to begin with.
      extras: what rides along (biases, norms), None for nothing; counted apart.
      memory: state of a dynamic method: a tree of arrays, which lives on the devices
        and in checkpoints, and is the same on every device.
      additive: what is trained beside the leaves, None for nothing; counted as chosen.
      reach: whole leaves that may ever move, whatever the mask says now; None where the
        mask does not move, or moves as positions.
      values: path -> what a leaf of the selection starts from instead of the base; None
        for nothing.
    """

    mask: Mask
    extras: Mask | None = None
    memory: Any = None
    additive: Additive | None = None
    reach: Mask | None = None
    values: Mapping[str, np.ndarray] | None = None


class Seen(NamedTuple):
    """What a dynamic method sees of a step, before anything is updated.

    Attributes:
      step: int32, steps done before this one: 0 in the first.
      values: path -> float32 array of what is trained; of a leaf that moves as
        positions `[k]`.
      grads: path -> float32 gradient of `values`, the mean over the whole batch; of a
        leaf that moves as positions the gradient of the whole leaf.
      leaves: path -> the whole leaf that moves as positions, as the network uses it;
        of no other leaf.
      base: path -> `[k]`, what the network had at these positions before they were
        selected; likewise.
    """

    step: jax.Array
    values: Mapping[str, jax.Array]
    grads: Mapping[str, jax.Array]
    leaves: Mapping[str, jax.Array] = {}
    base: Mapping[str, jax.Array] = {}


class Seeds(NamedTuple):
    """What is known of the gradients of an element that has just been selected.

    Attributes:
      first: path -> mean of its candidate gradients, of the shape of `grads`, or of the
        new positions.
      second: path -> mean of their squares.
      steps: int32, how many they were.
    """

    first: Mapping[str, jax.Array]
    second: Mapping[str, jax.Array]
    steps: jax.Array


class Moved(NamedTuple):
    """What a dynamic method answers.

    Attributes:
      selection: with the mask of this very step's update and new memory; other fields
        as they were.
      grads: what the optimiser is given instead of `Seen.grads`; None for these.
      seeds: for moments `"seed"`; None from a method that knows no candidates.
    """

    selection: Selection
    grads: Mapping[str, jax.Array] | None = None
    seeds: Seeds | None = None


def hold(seen: Seen, selection: Selection) -> Moved:
    """The update of a static method: the selection as it is."""
    del seen
    return Moved(selection)


class Probe(NamedTuple):
    """What a penalty may look at; one device's rows.

    Attributes:
      params: all parameters as the network uses them.
      values: path -> float32 masters of the whole leaves, and added arrays.
      memory: of the selection.
      step: int32, steps done before this one.
      key: of random numbers, another one in every step and on every device.
      x: what enters block `start`, `[B, ...]`.
      weight: `[B]`, 0 for padding.
      apply: (params, x, start, stop) -> the output, in evaluation mode.
      start: the block that x enters.
    """

    params: Params
    values: Mapping[str, jax.Array]
    memory: Any
    step: jax.Array
    key: jax.Array
    x: jax.Array
    weight: jax.Array
    apply: Callable[..., jax.Array]
    start: str


class Selector(NamedTuple):
    """A selection method: two pure functions, like an optax transformation.

    `init` runs once on the host and fixes the reach: the leaves that may ever
    move. `update` runs inside the compiled step and may only move the mask within
    that reach; what it returns has the shapes and types of what it was given.

    Attributes:
      init: (evidence) -> the selection.
      update: (seen, selection) -> `Moved`.
      looks: step -> bool, both traced: whether `update` is called in that step, where
        leaves move as positions; only then are gradients of whole leaves formed.
      reverts: whether an element that moves as a position goes back to its `Seen.base`
        when it is no longer selected; else it keeps its value.
      view: (path -> float32 masters of whole leaves, memory) -> path -> those that the
        network uses in training instead; what is not returned is used as it is. It is
        differentiated; evaluation uses the masters.
      penalty: (probe) -> scalar, added to the mean loss in training.
      moments: what becomes of the optimiser's moments where the mask moves, unless the
        config says: see `moments.POLICIES`.
    """

    init: Callable[[Evidence], Selection]
    update: Callable[[Seen, Selection], Moved] = hold
    looks: Callable[[jax.Array], jax.Array] = lambda step: step >= 0
    reverts: bool = False
    view: Callable[[Mapping[str, jax.Array], Any], dict[str, jax.Array]] | None = None
    penalty: Callable[[Probe], jax.Array] | None = None
    moments: str = "keep"
