"""LIFT: the elements that are largest in a low-rank approximation of each matrix.

Needs no data. Source: "LIFT", arXiv:2506.00772, and its released code
(zihanghliu/LIFT, `src/sparseAdam.py`): each weight is replaced by its `filter_rank`
largest singular values and their vectors, and the elements largest in absolute value
there are trained, as many as LoRA of a given rank would train, `(fan_in + out) * rank`.
The code's defaults are 128 for both ranks, some 5 % of the matrices of a large language
model; of a `[768, 768]` matrix that is a third. It takes a budget above the matrix as
the whole matrix, and so do we.

The code finds the mask anew every few hundred steps (400 in most of its scripts) and
carries the moments of what stays: a mask that moves, left for later; here it is found
once, of the base. Embeddings, which it selects from too unless told otherwise, are not
called `kernel` here.
"""

from typing import Any

import numpy as np

from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import choose, masks

TINY: dict[str, Any] = {"rank_budget": 1, "filter_rank": 2}


def make(
    rank_budget: int = 128, filter_rank: int = 128, among: str = r".*kernel"
) -> Selector:
    """Trains the elements largest in each matrix's low-rank part, ties to the first.

    Args:
      rank_budget: rank of the LoRA that would train as many elements, 1 or more.
      filter_rank: singular values that are kept, 1 or more; above what a matrix has,
        all of them: then the rule is that of magnitude.
      among: regular expression over whole paths: the arrays that are chosen from, each
        read as `[fan_in, out]`.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing, or a
        vector.
    """
    if rank_budget < 1 or filter_rank < 1:
        given = f"rank_budget={rank_budget}, filter_rank={filter_rank}"
        raise ValueError(f"lift {given}; both must be 1 or more")

    def init(evidence: Evidence) -> Selection:
        below = masks.find(evidence.params, among, evidence.blocks[-1:])
        chosen = {
            path: _largest(path, np.asarray(leaf, np.float32), rank_budget, filter_rank)
            for path, leaf in below.items()
        }
        return Selection(masks.fill(evidence.params, chosen))

    return Selector(init)


def _largest(
    path: str, kernel: np.ndarray, rank_budget: int, filter_rank: int
) -> np.ndarray:
    if kernel.ndim < 2:
        raise ValueError(f"lift was given {path!r} {kernel.shape}; it is no matrix")
    matrix = kernel.reshape(-1, kernel.shape[-1])
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = slice(filter_rank)
    low = (left[:, kept] * values[kept]) @ right[kept]
    count = min(sum(matrix.shape) * rank_budget, matrix.size)
    scores = {path: np.abs(low).reshape(kernel.shape)}
    return choose.top_overall(scores, count)[path]
