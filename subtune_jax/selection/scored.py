"""What most static methods are: a score of each element, and a choice by it."""

from collections.abc import Callable
from typing import Any

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask
from subtune_jax.core.method import Evidence, Selection, Selector
from subtune_jax.selection import masks, reach


def score_then_choose(
    score: Callable[[Evidence, dict[str, Any]], Any],
    choose: Callable[[dict[str, Any]], Mask],
    among: str,
    extras: str | Callable[[Evidence, Mask], Mask] | None = None,
) -> Selector:
    """The static method that scores the leaves of `among` and trains the best.

    Args:
      score: (evidence, path -> leaf of those below the head that `among` names) ->
        scores of these leaves at least, as a tree like the parameters or by path;
        higher is better.
      choose: (path -> scores of these leaves) -> path -> what is trained of them,
        booleans of their shapes.
      among: regular expression over whole paths: the arrays that are chosen from.
      extras: what is trained besides, counted apart: a regular expression over whole
        paths, or (evidence, mask of the best) -> mask; None for nothing.

    Returns:
      A method whose `init` raises ValueError where a pattern matches nothing.
    """

    def init(evidence: Evidence) -> Selection:
        params, head = evidence.params, evidence.blocks[-1:]
        leaves = reach.below(evidence, among)
        scores = trees.pick(score(evidence, leaves), leaves)
        mask = masks.fill(params, choose(scores))
        if callable(extras):
            return Selection(mask, extras(evidence, mask))
        return Selection(mask, masks.besides(params, mask, extras, head))

    return Selector(init)
