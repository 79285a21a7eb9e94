"""LISA: a few blocks at a time, drawn anew every so many steps.

Source: Pan et al., "LISA: Layerwise Importance Sampling for Memory-Efficient Large
Language Model Fine-Tuning", arXiv:2403.17919, and its released code (OptimalScale/
LMFlow, `finetuner.py`). Embeddings, last norm and head are always trained; of the
repeated blocks `count` are, drawn uniformly and without replacement every
`period_steps`, whatever the name says of importance. The code's defaults are 2 and 20.

There a frozen block keeps its moments, which is policy `"keep"`; a later file of the
code (`lisa_trainer.py`) throws them away at every draw: `optimizer.moments="reset"`.
The method was made to save memory; here the state of all blocks stays on the devices,
so that one compiled step serves every draw.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import Evidence, Moved, Seen, Selection, Selector, masks, reach

TINY: dict[str, Any] = {"count": 1, "period_steps": 2}


def make(
    count: int = 2,
    period_steps: int = 20,
    pattern: str = reach.REPEATED,
    outside: bool = True,
) -> Selector:
    """Trains `count` of the repeated blocks, and all that lies outside them.

    The memory is the state of the random numbers, uint32, two of them.

    Args:
      count: number of blocks that are trained at a time, from 1 to that of the repeated
        ones.
      period_steps: steps from one draw of blocks to the next, 1 or more; the first draw
        is before training.
      pattern: regular expression over whole block names: the blocks that are drawn
        from.
      outside: whether the blocks outside the repeated ones, but not the head, are
        trained whole besides; counted apart. Some networks have none.

    Raises:
      ValueError: a number out of its range; in `init`, `pattern` matches no block, or
        fewer than `count`.
    """
    if count < 1 or period_steps < 1:
        raise ValueError(f"lisa {count=}, {period_steps=}; both must be 1 or more")

    def init(evidence: Evidence) -> Selection:
        params, inside = evidence.params, reach.repeated(evidence, pattern)
        known = sorted(set(map(_block, inside)))
        if count > len(known):
            what = f"lisa count={count} is outside [1, {len(known)}]"
            raise ValueError(f"{what}; {', '.join(known)}")
        seed = jax.random.key_data(jax.random.key(evidence.seed))
        drawn, key = _draw(seed, inside, count)
        mask = masks.fill(params, jax.tree.map(np.bool_, drawn))
        extras = reach.outside(evidence, inside) if outside else None
        whole = masks.fill(params, dict.fromkeys(inside, np.True_))
        return Selection(mask, extras, {"key": np.asarray(key)}, reach=whole)

    def update(seen: Seen, selection: Selection) -> Moved:
        old = dict(selection.mask), selection.memory["key"]
        new = _draw(selection.memory["key"], selection.mask, count)
        now = (seen.step > 0) & (seen.step % period_steps == 0)
        mask, key = jax.tree.map(functools.partial(jnp.where, now), new, old)
        return Moved(selection._replace(mask=mask, memory={"key": key}))

    return Selector(init, update)


def _draw(
    data: jax.Array, paths: Iterable[str], count: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Path -> whether its block is one of `count` drawn; and the next key's data."""
    following, key = jax.random.split(jax.random.wrap_key_data(data))
    paths = list(paths)
    blocks = sorted(set(map(_block, paths)))
    drawn = jax.random.permutation(key, len(blocks)) < count
    flags = dict(zip(blocks, drawn, strict=True))
    return {path: flags[_block(path)] for path in paths}, jax.random.key_data(following)


def _block(path: str) -> str:
    return path.split("/")[0]
