"""The contracts between plug-ins and mechanism.

Data flows one way: config -> task, backbone, method -> selection -> step ->
evaluation -> delta. A plug-in is a file in `tasks/`, `backbones/` or `methods/`
with a function `make(...)` that returns a `Task` or a `Backbone`, which are here, or a
`method.Selector`.

Axis letters, everywhere: B batch, H W image, L tokens, D width, C classes,
N examples, n parameters, k selected parameters.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from subtune_jax.core import losses

HEAD = "head"  # the last block of every network

Params = dict[str, Any]  # nested dict of arrays; the first key is the block
Mask = dict[str, Any]  # the same structure; booleans that broadcast, True = trainable


class Split(NamedTuple):
    """The examples of one split, read one at a time and in any order.

    Attributes:
      read: index in [0, N) -> one example, `{"image": uint8 [H, W, 3]}` or
        `{"text": str}`, and of sentence pairs `"pair"`, the second text; raises
        ValueError that names the file when it cannot be read.
      labels: int32 `[N]`, each in [0, C); of a dense task what `dataset.subset` keeps
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
