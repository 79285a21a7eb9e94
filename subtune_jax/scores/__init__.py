"""Scores: how much each element seems to matter; higher is better.

`gradient_scores`, `fisher`, `activations` need batches, `data_free` none; with
`stopping_rule` as few batches are read as leave the choice unchanged; `accumulate` sums
over batches in one compiled function. Every score is a tree like `params`, in float32.
"""

from subtune_jax.scores.activations import activation
from subtune_jax.scores.data_free import low_rank, magnitude, random
from subtune_jax.scores.fisher import fisher_expected
from subtune_jax.scores.gradient_scores import (
    PER_EXAMPLE,
    REDUCTIONS,
    gradient,
    gradients,
    movement,
    snip,
)
from subtune_jax.scores.stopping_rule import Gathered, Until, until_stable

__all__ = [
    "PER_EXAMPLE",
    "REDUCTIONS",
    "Gathered",
    "Until",
    "activation",
    "fisher_expected",
    "gradient",
    "gradients",
    "low_rank",
    "magnitude",
    "movement",
    "random",
    "snip",
    "until_stable",
]
