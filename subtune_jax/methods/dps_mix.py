"""DPS Mix: DPS Dense, whose forward pass mixes the weights with those of before.

Source: Zhang et al., "Fine-Tuning Pre-Trained Language Models Effectively by Optimizing
Subnetworks Adaptively", arXiv:2211.01642, and its released code. With p = `drop_ratio`,
W the weights and T a target, the network uses in training

    (n * W + (1 - n) * T - p * T) / (1 - p)

and the gradient in W is that of what is used times n: the factor 1 / (1 - p) is left
out. In the first stage T is the base and n is drawn in every step, 1 with probability
1 - p: one number an input of each array, which all its outputs share. In the second T
is W as the stage began, and n the mask: of each array the `ceil(N * (1 - p))` largest

    sum of squared gradients / times n was 1, both of the first stage,

times exp(-times / steps of a stage) where these are 50 or more. What `dps_dense` says
of arrays, ties, squares, steps and names is so here.

Hazards. Evaluation uses W itself, training what is mixed. In the second stage the code
masks the gradient alone, so that AdamW's momentum and decay move W where the network
uses T: what is then learned is not what is evaluated (so under
`optimizer.moving="mask_gradient"`). By default what is masked stays T here, in that
stage, to the last bit. In the first stage nothing is masked in either way: elements
without a gradient in a step have a gradient of zero, as under dropout.

Order within a step: the network uses `view`, then `update` is called, then W moves. So
n of a step is found by `update` of the step before. T of the second stage, W as its
first step begins, is not known then. That step's `view` takes W for T, which is what T
is, and its `update` stores it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import Evidence, Moved, Seen, Selection, Selector, reach, stages

TINY: dict[str, Any] = {"update_ratio": 0.25}
# What a step does; the second stage is the latter two.
EXPLORES, OPENS, HOLDS = range(3)


def make(
    drop_ratio: float = 0.3,
    update_ratio: float = 0.05,
    stage_steps: int = 0,
    among: str = r".*kernel",
    head: bool = True,
    outside: bool = True,
) -> Selector:
    """Trains a drawn and a chosen share of each array by turns.

    The memory has `stage_steps` and `phase` of the coming step, int32; `key`, uint32
    `[2]`, the data of a threefry key, which never changes: a step's noise follows from
    it and the step's number; and path -> arrays: `kept`, n of the coming step, booleans
    of the leaf's shape; `times` `[..., 1]`, `squares`, `base` and `target`, float32.

    Args:
      drop_ratio: share in [0, 1) of each array that the second stage leaves alone; of n
        elements it trains `ceil(n * (1 - drop_ratio))`. The code calls it `reserve_p`.
      update_ratio: share in (0, 1] of the run's steps that a stage takes, rounded down,
        one step at least.
      stage_steps: length of a stage in steps, in place of `update_ratio`; 0 for
        `update_ratio`.
      among: regular expression over whole paths: the arrays that elements are chosen
        from, each read as `[fan_in, out]`.
      head: whether the mask is also over arrays of the head; else the head is trained
        whole.
      outside: whether all other leaves below the head are trained besides; counted
        apart.

    Raises:
      ValueError: as in `dps_dense`; in `init`, `among` matches a vector.
    """
    stages.check(drop_ratio, update_ratio, stage_steps)

    def init(evidence: Evidence) -> Selection:
        steps = stages.length(update_ratio, stage_steps, evidence)
        selection = reach.start(evidence, among, head, outside)
        base = reach.values(evidence, selection)
        reach.check_matrices(base)
        memory = _memory(base, steps, evidence.seed, drop_ratio)
        return selection._replace(memory=memory)

    def update(seen: Seen, selection: Selection) -> Moved:
        memory = selection.memory
        explores = memory["phase"] == EXPLORES
        mask = {path: n | explores for path, n in memory["kept"].items()}
        memory = _prepare(_summed(memory, seen), seen.step + 1, drop_ratio)
        return Moved(selection._replace(mask=selection.mask | mask, memory=memory))

    def view(values: Mapping[str, jax.Array], memory: Any) -> dict[str, jax.Array]:
        opens, explores = memory["phase"] == OPENS, memory["phase"] == EXPLORES
        used = {}
        for path, kept in memory["kept"].items():
            base, target = memory["base"][path], memory["target"][path]
            now = jax.lax.stop_gradient(values[path])
            target = jnp.where(explores, base, jnp.where(opens, now, target))
            n = kept.astype(now.dtype)
            mixed = n * now + (1 - n) * target - drop_ratio * target
            # The second term is zero; it has the gradient that the code states.
            used[path] = mixed / (1 - drop_ratio) + n * (values[path] - now)
        return used

    return Selector(init, update, view=view)


def _memory(
    base: dict[str, np.ndarray], steps: int, seed: int, drop_ratio: float
) -> dict[str, Any]:
    key = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    noise = _noise(key, 0, base, drop_ratio)
    return {
        "stage_steps": np.asarray(steps, np.int32),
        "phase": np.asarray(EXPLORES, np.int32),
        "key": np.asarray(key),
        "kept": {path: np.asarray(n) for path, n in noise.items()},
        "times": {p: np.zeros((*x.shape[:-1], 1), np.float32) for p, x in base.items()},
        "squares": {path: np.zeros_like(leaf) for path, leaf in base.items()},
        "base": base,
        "target": {path: np.zeros_like(leaf) for path, leaf in base.items()},
    }


def _summed(memory: Any, seen: Seen) -> dict[str, Any]:
    """The memory with what this step adds to it: sums, or the target."""
    explores, opens = memory["phase"] == EXPLORES, memory["phase"] == OPENS
    renews = seen.step % memory["stage_steps"] == 0
    squares, times, target = {}, {}, {}
    for path, kept in memory["kept"].items():
        # The gradient is zero where n is: see `view`.
        total, count = memory["squares"][path], memory["times"][path]
        more = stages.add_square(total, seen.grads[path], renews)
        squares[path] = jnp.where(explores, more, total)
        # While noise is drawn all outputs of an input have the same.
        more = jnp.where(renews, 0, count) + kept[..., :1]
        times[path] = jnp.where(explores, more, count)
        target[path] = jnp.where(opens, seen.values[path], memory["target"][path])
    return memory | {"squares": squares, "times": times, "target": target}


def _prepare(memory: Any, coming: jax.Array, drop_ratio: float) -> dict[str, Any]:
    """The memory with the phase and n of the coming step."""
    steps = memory["stage_steps"]
    opens = jnp.where(coming % steps == 0, OPENS, HOLDS)
    phase = jnp.where((coming // steps) % 2 == 0, EXPLORES, opens)
    branches = [  # in the order of the phases
        lambda: _noise(memory["key"], coming, memory["squares"], drop_ratio),
        lambda: stages.largest(_scores(memory), drop_ratio),
        lambda: memory["kept"],
    ]
    kept = jax.lax.switch(phase, branches)
    return memory | {"phase": phase.astype(jnp.int32), "kept": kept}


def _noise(
    data: Any, step: Any, shapes: Mapping[str, Any], drop_ratio: float
) -> dict[str, jax.Array]:
    """What n is in a step: one draw an input, repeated over the outputs."""
    key = jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")
    key, noise = jax.random.fold_in(key, step), {}
    for number, (path, leaf) in enumerate(sorted(shapes.items())):
        inputs = (*leaf.shape[:-1], 1)
        n = jax.random.bernoulli(
            jax.random.fold_in(key, number), 1 - drop_ratio, inputs
        )
        noise[path] = jnp.broadcast_to(n, leaf.shape)
    return noise


def _scores(memory: Any) -> dict[str, jax.Array]:
    steps, scores = memory["stage_steps"], {}
    for path, total in memory["squares"].items():
        times = memory["times"][path]
        rare = jnp.where(steps >= 50, jnp.exp(-times / steps), 1)
        scores[path] = total / jnp.maximum(times, 1) * rare
    return scores
