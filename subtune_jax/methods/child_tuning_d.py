"""Child-Tuning-D: the elements of the blocks with the largest squared gradients.

Source: Xu et al., "Raise a Child in Large Language Model: Towards Effective and
Generalizable Fine-tuning", arXiv:2109.05687, and its released code. The paper speaks of
Fisher information, squares of single examples; the code sums the squares of batch
gradients over one pass through the training data, after it has clipped the gradient of
each array by its own norm (1.0), as we do. Of the encoder's layers together it keeps
the 0.3 with the largest sums; embeddings, pooler and classifier are trained whole. So
are here the stem, embeddings and last norm, as `extras`.

The code keeps whatever reaches a percentile, with all ties; we keep an exact number.
Its network is in training mode, with dropout, while it scores, ours in evaluation mode.
It masks gradients before AdamW, whose decay then shrinks what was masked; here what is
not selected never moves.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Evidence,
    Mask,
    Selector,
    choose,
    reach,
    score_then_choose,
    trees,
)

TINY: dict[str, Any] = {}


def make(
    fraction: float = 0.3,
    batches: int = 0,
    clip_norm: float = 1.0,
    pattern: str = reach.REPEATED,
    outside: bool = True,
) -> Selector:
    """Trains a share of the repeated blocks, and all that lies outside them.

    Args:
      fraction: share in [0, 1] of all elements of the repeated blocks together.
      batches: number of batches whose gradients are summed, 0 or more; 0 for one pass
        through the training examples.
      clip_norm: bound on the norm of each array's gradient of a batch, 0 or more; 0 for
        none.
      pattern: regular expression over whole block names: the repeated blocks.
      outside: whether the blocks outside the repeated ones, but not the head, are
        trained whole besides; counted apart. Some networks have none.

    Raises:
      ValueError: a number out of its range; in `init`, `pattern` matches no block.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if batches < 0 or clip_norm < 0:
        raise ValueError(
            f"child_tuning_d {batches=}, {clip_norm=}; both must be 0 or more"
        )

    def score(evidence: Evidence, leaves: dict[str, Any]) -> dict[str, jax.Array]:
        return _squares(evidence, leaves, batches, clip_norm)

    def best(squares: Any) -> Any:
        return choose.by_scope(squares, "network", fraction)

    def rest(evidence: Evidence, mask: Mask) -> Mask:
        del mask
        return reach.outside(evidence, reach.repeated(evidence, pattern))

    among, extras = f"(?:{pattern})/.*", rest if outside else None
    return score_then_choose(score, best, among, extras)


def _squares(
    evidence: Evidence, inside: dict[str, Any], batches: int, clip_norm: float
) -> dict[str, jax.Array]:
    """The sum over batches of squared gradients, each array's clipped first."""

    @functools.partial(jax.jit, donate_argnums=0)
    def add(total: dict[str, jax.Array], params: Any, batch: Any) -> Any:
        grads = trees.leaves(jax.grad(evidence.loss_fn)(params, batch))
        return {p: t + jnp.square(_clip(grads[p], clip_norm)) for p, t in total.items()}

    total = {path: jnp.zeros(np.shape(x), jnp.float32) for path, x in inside.items()}
    for batch in evidence.batches(batches or evidence.epoch_batches):
        total = add(total, evidence.params, batch)
    return total


def _clip(grad: jax.Array, norm: float) -> jax.Array:
    wide = grad.astype(jnp.float32)
    if not norm:
        return wide
    return wide * (norm / jnp.maximum(jnp.sqrt(jnp.sum(wide**2)), norm))
