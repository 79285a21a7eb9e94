"""Random elements: the control that every element-wise method has to beat.

In the same harness and at the same count, a random mask (SHiRA) beat LoRA of rank 32
on a language model: 0.510 against 0.478 on GSM8K. It belongs in every comparison.

Source: Bhardwaj et al., "Sparse High Rank Adapters", arXiv:2406.13175, whose mask in
Hugging Face PEFT is this one: random, of linear layers, with a budget per array.
"""

from typing import Any

from subtune_jax import Evidence, Selector, choose, score_then_choose, scores

TINY: dict[str, Any] = {"count": 1}


def make(
    scope: str = "neuron",
    fraction: float | None = None,
    count: int | None = None,
    budget_bytes: int | None = None,
    among: str = r".*kernel",
    extras: str | None = None,
) -> Selector:
    """Trains elements drawn at random, the same for the same seed.

    Args:
      scope: what the budget is for: each `"neuron"`, each `"array"`, each `"block"` or
        the `"network"`.
      fraction: share in [0, 1] of the elements of each scope, one element at least
        unless it is 0; give one of `fraction`, `count` and `budget_bytes`.
      count: number of elements of each scope, 1 or more; give one of `fraction`,
        `count` and `budget_bytes`.
      budget_bytes: bytes of each scope's part of the delta, 8 an element, 8 or more;
        give one of `fraction`, `count` and `budget_bytes`.
      among: regular expression over whole paths: the arrays that elements are drawn
        from. In the scope `"neuron"` nothing of vectors is drawn: they have no inputs.
      extras: regular expression over whole paths: what is trained besides, such as
        `.*/bias`; counted apart. None for nothing.

    Raises:
      ValueError: in `init`, a pattern matches nothing or there is less than `count`.
    """

    def score(evidence: Evidence, leaves: Any) -> Any:
        return scores.random(leaves, evidence.seed)

    def best(draws: Any) -> Any:
        return choose.by_scope(draws, scope, fraction, count, budget_bytes=budget_bytes)

    return score_then_choose(score, best, among, extras)
