"""LIFT: the elements that are largest in a low-rank approximation of each matrix.

Needs no data. Source: "LIFT", arXiv:2506.00772, and its released code
(zihanghliu/LIFT, `src/sparseAdam.py`): each weight is replaced by its `filter_rank`
largest singular values and their vectors, and the elements largest in absolute value
there are trained, as many as LoRA of a given rank would train, `(fan_in + out) * rank`.
The code's defaults are 128 for both ranks, some 5 % of the matrices of a large language
model; of a `[768, 768]` matrix that is a third. It takes a budget above the matrix as
the whole matrix, and so do we.

The code finds the mask anew every few hundred steps (400 in most of its scripts) and
carries the moments of what stays: a dynamic mask, left for later; here it is chosen
once, of the base. Embeddings, which it selects from too unless told otherwise, are not
called `kernel` here.
"""

from typing import Any

import numpy as np

from subtune_jax import Evidence, Selector, choose, reach, score_then_choose, scores

TINY: dict[str, Any] = {"rank_budget": 1, "filter_rank": 2}


def make(
    rank_budget: int = 128, filter_rank: int = 128, among: str = r".*kernel"
) -> Selector:
    """Trains the elements largest in each matrix's low-rank part, ties to the first.

    Args:
      rank_budget: rank of the LoRA that would train as many elements, 1 or more.
      filter_rank: number of singular values that are kept of each matrix, 1 or more;
        where it has no more, all are kept and the rule is that of magnitude.
      among: regular expression over whole paths: the arrays that elements are chosen
        from, each read as `[fan_in, out]`.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing, or a
        vector.
    """
    if rank_budget < 1 or filter_rank < 1:
        raise ValueError(f"lift {rank_budget=}, {filter_rank=}; both must be 1 or more")

    def score(evidence: Evidence, leaves: dict[str, Any]) -> Any:
        del evidence
        reach.check_matrices(leaves)
        return scores.low_rank(leaves, filter_rank)

    def best(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
        flags: dict[str, np.ndarray] = {}
        for path, size in sizes.items():
            out = size.shape[-1]
            count = min((size.size // out + out) * rank_budget, size.size)
            flags |= choose.top_overall({path: size}, count)
        return flags

    return score_then_choose(score, best, among)
