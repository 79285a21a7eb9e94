"""The contracts between plug-ins and mechanism.

Data flows one way: config -> task, backbone, method -> selection -> step ->
evaluation -> delta. A plug-in is a file in `tasks/`, `backbones/` or `methods/`
with a function `make(...)` that returns one of the tuples below.

Axis letters, everywhere: B batch, H W image, L tokens, D width, C classes,
N examples, n parameters, k selected parameters.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax import losses

Params = dict[str, Any]  # nested dict of arrays; the first key is the block
Mask = dict[str, Any]  # the same structure; booleans that broadcast, True = trainable


class Split(NamedTuple):
    """The examples of one split, read one at a time and in any order.

    Attributes:
      read: index in [0, N) -> one example, `{"image": uint8 [H, W, 3]}`; raises
        ValueError that names the file when it cannot be read.
      labels: int32 `[N]`, each in [0, C); of a dense task what `data.subset` keeps
        the shares of, zeros for chance alone.
      mask: of a dense task: index -> uint8 `[H, W]`, as large as the image, of each
        pixel its class or `dense.IGNORED`; raises as `read` does.
    """

    read: Callable[[int], dict[str, np.ndarray]]
    labels: np.ndarray
    mask: Callable[[int], np.ndarray] | None = None


class Task(NamedTuple):
    """A data source: three disjoint splits, the loss and the metric.

    A dense task has a class for every pixel: its splits have masks, its logits are
    `[B, h, w, C]`, and masks `[B, H, W]` stand for targets and labels.

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
      input_shape: `(H, W, 3)`.
      normalize: (mean `[3]`, std `[3]`) of pixels in [0, 255]: the network sees
        `(pixels - mean) / std`.
      init: (key, C) -> random variables, head included.
      load: () -> the pretrained base: variables without the head.
      apply: `(params, stats, x, *, training=(), weight=None, axis_name=None,
        start=None, stop=None) -> (output, stats)` runs blocks `start` (included;
        default the first) to `stop` (excluded; default: all): logits `[B, C]` when
        the head is run, the input of block `stop` otherwise. Blocks named by
        `training` normalise by the statistics of the batch (weighted by `weight`
        `[B]`, over all devices of `axis_name`) and update the running ones; all
        others run in evaluation mode.
      alike: block -> the first block that is the same function of its own parameters,
        its statistics and its input, so that both run the same compiled program. A
        block that is missing is like no other.
      dense: () -> the network of the same base and the same names whose head answers
        for every place of its last map, `[B, h, w, C]`; None where there is none.
    """

    name: str
    blocks: tuple[str, ...]
    input_shape: tuple[int, int, int]
    normalize: tuple[tuple[float, float, float], tuple[float, float, float]]
    init: Callable[[jax.Array, int], Variables]
    load: Callable[[], Variables]
    apply: Callable[..., tuple[jax.Array, Params]]
    alike: Mapping[str, str] = types.MappingProxyType({})
    dense: "Callable[[], Backbone] | None" = None


class Evidence(NamedTuple):
    """What a method may look at: the network and training data, nothing else.

    Attributes:
      params: all parameters, head included.
      blocks: block names from input to output, the last one `"head"`.
      loss_fn: (params, batch) -> scalar, differentiable.
      batches: n -> iterable of n training batches, the same at every call.
      seed: for methods that draw.
      epoch_batches: how many batches go once through the training examples.
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

    Attributes:
      mask: what the method chose.
      extras: what rides along (biases, norms), None for nothing; counted apart.
      memory: state of a method that moves its mask during training.
      additive: what is trained beside the leaves, None for nothing; counted as chosen.
    """

    mask: Mask
    extras: Mask | None = None
    memory: Any = None
    additive: Additive | None = None


def hold(grads: Any, selection: Selection, step: jax.Array) -> Selection:
    """The update of a static method: the selection as it is."""
    del grads, step
    return selection


class Selector(NamedTuple):
    """A selection method: two pure functions, like an optax transformation.

    `init` runs once on the host and fixes the reach: the leaves that may ever
    move. `update` runs inside the compiled step and may only move the mask within
    that reach.
    """

    init: Callable[[Evidence], Selection]
    update: Callable[[Any, Selection, jax.Array], Selection] = hold
