"""SpIEL: a fixed number of elements, of which the idle are dropped and others grown.

Source: Ansell et al., "Scaling Sparse Fine-Tuning to Large Language Models",
arXiv:2401.16405, and its released code (its "rigl" form; not the SM3 one). What is
trained are differences to the base at k positions of each array. Every `period_steps`
the positions change: over `accumulate_steps` gradients the candidates, the k elements
with the largest gradient in the first of them, have their gradients summed; then a
share of the positions, those with the smallest difference, is dropped, back to the
base, and as many candidates with the largest absolute sum take their place. A dropped
element that is grown at once stays as it was. The share falls linearly from
`drop_ratio` to 0 over the run; the first time, once `accumulate_steps` are over, it is
all of them: the random positions that a run begins with hardly matter.

Moments of new elements are seeded from their candidate gradients, with an age for each
element (`moments`). The code stores the mean of the gradients and of their squares as
the moments of age T, and the correction for bias then divides them by `1 - b^T` again,
which makes first updates of T = 5 some six times too small; ours are the moments that
Adam itself would have. The code sums one gradient more in every period but the first.
Ties go to the first here, to anybody there.

All of it is of size k but the gradients of the steps in which the method looks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Evidence,
    Moved,
    Seeds,
    Seen,
    Selection,
    Selector,
    choose,
    masks,
    reach,
    top_k_traced,
)

TINY: dict[str, Any] = {"fraction": 0.1, "period_steps": 4, "accumulate_steps": 2}
Memory = dict[str, dict[str, jax.Array]]


def make(
    fraction: float = 0.01,
    period_steps: int = 100,
    accumulate_steps: int = 5,
    drop_ratio: float = 0.2,
    among: str = r".*kernel",
) -> Selector:
    """Trains a share of each array, which changes during training.

    The memory is `candidates`, path -> int32 `[k]`, their `sums` and `squares`, path ->
    float32 `[k]`, and the `steps` of the run.

    Args:
      fraction: share in [0, 1] of each array, one element at least unless it is 0.
      period_steps: steps from one change of positions to the next, 1 or more.
      accumulate_steps: number of steps, from 1 to `period_steps`, whose gradients
        decide about a change.
      drop_ratio: share in [0, 1] of the positions that a change at the beginning of the
        run would drop; it falls to 0 at the end.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing, or
        nobody can tell how long the run is.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if not 1 <= accumulate_steps <= period_steps or not 0 <= drop_ratio <= 1:
        numbers = f"{period_steps=}, {accumulate_steps=}, {drop_ratio=}"
        raise ValueError(
            f"spiel {numbers}; 1 <= accumulate_steps <= period_steps, in [0, 1]"
        )

    def init(evidence: Evidence) -> Selection:
        if evidence.train_steps < 1:
            raise ValueError("spiel was not told how many steps the run has")
        flags, memory = _random(reach.below(evidence, among), fraction, evidence.seed)
        memory["steps"] = {"run": np.int32(evidence.train_steps)}
        return Selection(masks.fill(evidence.params, flags), memory=memory)

    def looks(step: jax.Array) -> jax.Array:
        return step % period_steps < accumulate_steps

    def update(seen: Seen, selection: Selection) -> Moved:
        place = seen.step % period_steps
        memory = jax.lax.cond(
            place == 0,
            lambda: _begin(seen, selection.mask),
            lambda: _add(seen, selection.memory),
        )
        done = seen.step + 1
        share = drop_ratio * (1 - done / selection.memory["steps"]["run"])
        share = jnp.where(seen.step < accumulate_steps, 1.0, jnp.maximum(share, 0))
        changes = place == accumulate_steps - 1
        mask = {}
        for path, old in selection.mask.items():
            change = jnp.abs(seen.values[path] - seen.base[path])
            dropped = jnp.floor(len(old) * share).astype(jnp.int32)
            candidates, sums = memory["candidates"][path], memory["sums"][path]
            new = _regrow(old, change, candidates, sums, dropped)
            mask[path] = jnp.where(changes, new, old)
        seeds = _seeds(memory, mask, accumulate_steps)
        memory = memory | {"steps": selection.memory["steps"]}
        return Moved(selection._replace(mask=mask, memory=memory), seeds=seeds)

    return Selector(init, update, looks, reverts=True, moments="seed")


def _random(below: dict[str, Any], fraction: float, seed: int) -> Any:
    """Marks of random positions, and a memory of the right shapes."""
    rng = np.random.default_rng(seed)
    flags, memory = {}, {"candidates": {}, "sums": {}, "squares": {}}
    for path, leaf in below.items():
        size = np.size(leaf)
        count = choose.share(fraction, size)
        marks = np.zeros(size, bool)
        marks[rng.choice(size, count, replace=False)] = True
        flags[path] = marks.reshape(np.shape(leaf))
        if 0 < count < size:
            memory["candidates"][path] = np.zeros(count, np.int32)
            memory["sums"][path] = np.zeros(count, np.float32)
            memory["squares"][path] = np.zeros(count, np.float32)
    return flags, memory


def _begin(seen: Seen, mask: Any) -> Memory:
    """Candidates by this gradient, which is the first of their sums."""
    flat = {path: seen.grads[path].reshape(-1).astype(jnp.float32) for path in mask}
    candidates = {
        p: top_k_traced.positions(jnp.abs(g), len(mask[p])) for p, g in flat.items()
    }
    sums = {path: flat[path][where] for path, where in candidates.items()}
    squares = {path: jnp.square(x) for path, x in sums.items()}
    return {"candidates": candidates, "sums": sums, "squares": squares}


def _add(seen: Seen, memory: Memory) -> Memory:
    """The sums with this gradient's."""
    candidates = memory["candidates"]
    few = {p: seen.grads[p].reshape(-1)[w] for p, w in candidates.items()}
    return {
        "candidates": candidates,
        "sums": {p: memory["sums"][p] + x for p, x in few.items()},
        "squares": {p: memory["squares"][p] + jnp.square(x) for p, x in few.items()},
    }


def _regrow(
    old: jax.Array,
    change: jax.Array,
    candidates: jax.Array,
    sums: jax.Array,
    dropped: jax.Array,
) -> jax.Array:
    """The positions after a change, int32 `[k]`, sorted.

    Args:
      old: positions `[k]`, sorted.
      change: of their values from the base, absolute.
      candidates: positions `[k]`, sorted; some may be among `old`.
      sums: of their gradients.
      dropped: how many of the old ones are dropped. As many candidates at least are not
        among those that are kept, for there are k of them.
    """
    keeps = _rank(change) < len(old) - dropped
    place = jnp.clip(jnp.searchsorted(old, candidates), 0, len(old) - 1)
    stays = (old[place] == candidates) & keeps[place]
    grows = ~stays & (_rank(jnp.where(stays, -jnp.inf, jnp.abs(sums))) < dropped)
    stay_or_grow = jnp.concatenate([keeps, grows])
    best = jnp.argsort(~stay_or_grow, stable=True)[: len(old)]
    return jnp.sort(jnp.concatenate([old, candidates])[best])


def _rank(scores: jax.Array) -> jax.Array:
    """How many are larger, or as large and before it."""
    return jnp.argsort(jnp.argsort(-scores, stable=True), stable=True)


def _seeds(memory: Memory, mask: Any, steps: int) -> Seeds:
    """Means of the candidates' gradients at the new positions; elsewhere anything."""
    first, second = {}, {}
    for path, new in mask.items():
        candidates = memory["candidates"][path]
        place = jnp.clip(jnp.searchsorted(candidates, new), 0, len(candidates) - 1)
        first[path] = memory["sums"][path][place] / steps
        second[path] = memory["squares"][path][place] / steps
    return Seeds(first, second, jnp.int32(steps))
