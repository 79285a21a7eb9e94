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

from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

REPEATED = r"(block|layer|hidden)\d[^/]*"  # names of the blocks that a network repeats
TINY: dict[str, Any] = {}


def make(
    fraction: float = 0.3,
    batches: int = 0,
    clip_norm: float = 1.0,
    pattern: str = REPEATED,
    outside: bool = True,
) -> Selector:
    """Trains a share of the repeated blocks, and all that lies outside them.

    Args:
      fraction: share in [0, 1] of all elements of these blocks together.
      batches: of gradients; 0 for one pass through the training examples.
      clip_norm: bound on the norm of each array's gradient of a batch; 0 for none.
      pattern: regular expression over whole block names: the repeated ones.
      outside: whether the blocks outside, but the head, are trained whole besides;
        counted apart. Some networks have none.

    Raises:
      ValueError: a number out of its range; in `init`, `pattern` matches no block.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if batches < 0 or clip_norm < 0:
        given = f"batches={batches}, clip_norm={clip_norm}"
        raise ValueError(f"child_tuning_d {given}; both must be 0 or more")

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        inside = masks.find(params, f"(?:{pattern})/.*", head)
        squares = _squares(evidence, inside, batches, clip_norm)
        mask = masks.fill(params, choose.by_scope(squares, "network", fraction))
        whole = masks.fill(params, dict.fromkeys(inside, np.True_))
        extras = masks.besides(params, whole, ".*" if outside else None, head)
        return Selection(mask, extras)

    return Selector(init)


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
