"""The contracts between plug-ins and mechanism.

Data flows one way: config -> task, backbone, method -> selection -> step ->
evaluation -> delta. A plug-in is a file in `tasks/`, `backbones/` or `methods/`
with a function `make(...)` that returns one of the tuples below.

Axis letters, everywhere: B batch, H W image, L tokens, D width, C classes,
N examples, n parameters, k selected parameters.
"""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax import losses

Params = dict[str, Any]  # nested dict of arrays; the first key is the block
Mask = dict[str, Any]  # the same structure; booleans that broadcast, True = trainable


class Split(NamedTuple):
    """The examples of one split, read one at a time and in any order.

    Attributes:
      read: index in [0, N) -> one example, `{"image": uint8 [H, W, 3]}` or
        `{"text": str}`, and of sentence pairs `"pair"`, the second text; raises
        ValueError that names the file when it cannot be read.
      labels: int32 `[N]`, each in [0, C); of a dense task what `data.subset` keeps
        the shares of, zeros for chance alone; of a regression float32, finite.
      mask: of a dense task: index -> uint8 `[H, W]`, as large as the image, of each
        pixel its class or `dense.IGNORED`; raises as `read` does.
    """

    read: Callable[[int], dict[str, Any]]
    labels: np.ndarray
    mask: Callable[[int], np.ndarray] | None = None


class Task(NamedTuple):
    """A data source: three disjoint splits, the loss and the metric.

    A dense task has a class for every pixel: its splits have masks, its logits are
    `[B, h, w, C]`, and masks `[B, H, W]` stand for targets and labels. A regression has
    one class, the name of what is measured: logits and targets are `[B, 1]`.

    Attributes:
      name: of the file in `tasks/`.
      classes: names of the C classes, in label order.
      train, validation, test: disjoint splits.
      loss: (logits `[B, C]`, targets `[B, C]` that sum to 1) -> `[B]`.
      metric_name: what `metric` is called in results.
      metric: (logits `[N, C]`, labels `[N]`), NumPy -> float; higher is better.
      also: name -> a further metric, which is reported and decides nothing.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    loss: Callable[..., jax.Array] = losses.cross_entropy
    metric_name: str = "accuracy"
    metric: Callable[[np.ndarray, np.ndarray], float] = losses.accuracy
    also: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = (
        types.MappingProxyType({})
    )

    @property
    def dense(self) -> bool:
        """Is there a class for every pixel?"""
        return self.train.mask is not None

    @property
    def regression(self) -> bool:
        """Is the label a number?"""
        return bool(np.issubdtype(self.train.labels.dtype, np.floating))


class Variables(NamedTuple):
    """What a network is made of: trainable arrays and running statistics."""

    params: Params
    stats: Params


class Backbone(NamedTuple):
    """A network as an ordered chain of blocks; the last one is `"head"`.

    Block `b` owns exactly the parameters and statistics under the key `b`.

    Attributes:
      name: of the file in `backbones/`.
      blocks: block names from input to output, the last one `"head"`.
      input_shape: of images `(H, W, 3)`; of texts `(L, 2)`, L tokens at most.
      normalize: (mean `[3]`, std `[3]`) of pixels in [0, 255]: the network sees
        `(pixels - mean) / std`. None of texts: it sees what `encode` returns.
      init: (key, C) -> random variables, head included.
      load: () -> the pretrained base: variables without the head.
      apply: `(params, stats, x, *, training=(), weight=None, axis_name=None,
        start=None, stop=None, key=None) -> (output, stats)` runs blocks `start`
        (included; default the first) to `stop` (excluded; default: all): logits
        `[B, C]` when the head is run, the input of block `stop` otherwise. Blocks
        named by `training` normalise by the statistics of the batch (weighted by
        `weight` `[B]`, over all devices of `axis_name`) and update the running ones;
        all others run in evaluation mode. With a `key` of random numbers units are
        dropped, in all blocks, at the rates that the network was made with.
      alike: block -> the first block that is the same function of its own parameters,
        its statistics and its input, so that both run the same compiled program. A
        block that is missing is like no other.
      dense: () -> the network of the same base and the same names whose head answers
        for every place of its last map, `[B, h, w, C]`; None where there is none.
      encode: N examples of texts, as `Split.read` gives them -> int32 `[N, L, 2]`: of
        each token its number and which text it is of, 1 or 2; 0 is padding, at the end.
        Any multiple of tokens may be cut from the end if it is padding: between blocks
        x is `[B, L, D]`, whose rows of padding are zeros. None of images.
      lengths: of texts, ascending: a batch is cut to the least of them that holds its
        longest text; the last one is L.
      drops: whether training draws units to drop: some rate is above 0.
    """

    name: str
    blocks: tuple[str, ...]
    input_shape: tuple[int, ...]
    normalize: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    init: Callable[[jax.Array, int], Variables]
    load: Callable[[], Variables]
    apply: Callable[..., tuple[jax.Array, Params]]
    alike: Mapping[str, str] = types.MappingProxyType({})
    dense: "Callable[[], Backbone] | None" = None
    encode: Callable[[Sequence[Mapping[str, str]]], np.ndarray] | None = None
    lengths: tuple[int, ...] = ()
    drops: bool = False


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
      mask: what the method chose; of a moving method, what it chose to begin with.
      extras: what rides along (biases, norms), None for nothing; counted apart.
      memory: state of a method that moves its mask during training: a tree of arrays,
        which lives on the devices and in checkpoints, and is the same on every device.
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
    """What a moving method sees of a step, before anything is updated.

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
    """What a moving method answers.

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
