"""BAdam: one block at a time, in turns, with new moments at every turn.

Source: Luo et al., "BAdam: A Memory Efficient Full Parameter Optimization Method for
Large Language Models", arXiv:2404.02827, and its released code (Ledzy/BAdam,
`block_optim.py`). Block coordinate descent: Adam trains one repeated block for K steps,
then the next, each once in a cycle, in random order (drawn anew for every cycle), from
the input up or from the head down. Embeddings and all else outside the blocks stay as
they are; a new head must be trained throughout, says the code's documentation, as here.
It suggests K = n / (B D) for n examples, batches of B and D blocks, so that a cycle is
one pass through the data, and at least 50; its scripts have 100.

The code's first block gets K - 1 steps, an off-by-one; here it gets K. At a turn it
forgets the moments of the head as well; `moments="reset"` does so for the blocks. It
was made to save memory; here the state of all blocks stays on the devices, so that one
compiled step serves every turn.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Evidence,
    Moved,
    Seen,
    Selection,
    Selector,
    check_choice,
    masks,
    reach,
)

TINY: dict[str, Any] = {}
ORDERS = ("random", "ascending", "descending")


def make(
    period_steps: int = 0,
    order: str = "random",
    pattern: str = reach.REPEATED,
    extras: str | None = None,
) -> Selector:
    """Trains one block at a time.

    The memory: `key`, the state of the random numbers; `turns`, block -> int32, when in
    this cycle it is its turn; `period_steps`, int32.

    Args:
      period_steps: length of a block's turn in steps, 0 or more; 0 for n / (B D), to
        the nearest, one step at least.
      order: in which order blocks take turns: `"random"`, `"ascending"` from the input
        up, or `"descending"`.
      pattern: regular expression over whole block names: the blocks that take turns;
        `.*` for stem, embeddings and last norm too.
      extras: regular expression over whole paths: what is trained all the time, such as
        a new pooler, `pooler/.*`; counted apart. None for nothing.

    Raises:
      ValueError: a number out of its range, or an unknown order; in `init`, a pattern
        matches nothing.
    """
    check_choice("badam order", order, ORDERS)
    if period_steps < 0:
        raise ValueError(f"badam {period_steps=}; it must be 0 or more")

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        inside = reach.repeated(evidence, pattern)
        owners = set(map(_block, inside))
        blocks = [block for block in evidence.blocks if block in owners]
        period = period_steps or int(evidence.epoch_batches / len(blocks) + 0.5)
        key = jax.random.key_data(jax.random.key(evidence.seed))
        turns = {block: place for place, block in enumerate(blocks)}
        if order == "descending":
            turns = {block: len(blocks) - 1 - place for block, place in turns.items()}
        if order == "random":
            turns, key = _draw(key, blocks)
        memory = {
            "key": np.asarray(key),
            "turns": {block: np.int32(turn) for block, turn in turns.items()},
            "period_steps": np.int32(max(period, 1)),
        }
        first = {path: np.bool_(turns[_block(path)] == 0) for path in inside}
        whole = masks.fill(params, dict.fromkeys(inside, np.True_))
        riding = masks.besides(params, whole, extras, head)
        return Selection(masks.fill(params, first), riding, memory, reach=whole)

    def update(seen: Seen, selection: Selection) -> Moved:
        memory = selection.memory
        turns, key = memory["turns"], memory["key"]
        turn = seen.step // memory["period_steps"]
        if order == "random":
            drawn = _draw(key, turns)
            # A new cycle; that of step 0 was drawn before training.
            now = (turn % len(turns) == 0) & (seen.step % memory["period_steps"] == 0)
            now = now & (seen.step > 0)
            old = dict(turns), key
            turns, key = jax.tree.map(lambda a, b: jnp.where(now, a, b), drawn, old)
        place = turn % len(turns)
        mask = {path: turns[_block(path)] == place for path in selection.mask}
        memory = {**memory, "key": key, "turns": turns}
        return Moved(selection._replace(mask=mask, memory=memory))

    return Selector(init, update, moments="reset")


def _draw(data: jax.Array, blocks: Any) -> tuple[dict[str, jax.Array], jax.Array]:
    """Block -> its turn in a random cycle, int32; and the next key's data."""
    following, key = jax.random.split(jax.random.wrap_key_data(data))
    drawn = jax.random.permutation(key, len(blocks)).astype(jnp.int32)
    # By name: a dict that has been through a compiled step is sorted.
    turns = dict(zip(sorted(blocks), drawn, strict=True))
    return turns, jax.random.key_data(following)


def _block(path: str) -> str:
    return path.split("/")[0]
