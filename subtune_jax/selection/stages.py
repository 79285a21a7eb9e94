"""Stages: training that by turns explores everything and then trains the best of it.

Source: Zhang et al., "Fine-Tuning Pre-Trained Language Models Effectively by Optimizing
Subnetworks Adaptively", arXiv:2211.01642, and its released code. `dps_dense` and
`dps_mix` say what each of them makes of it.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from subtune_jax.core.method import Evidence
from subtune_jax.selection import top_k_traced


def check(drop_ratio: float, update_ratio: float, stage_steps: int) -> None:
    """Refuses, by ValueError, arguments of `make` that are out of their ranges."""
    in_range = 0 <= drop_ratio < 1 and 0 < update_ratio <= 1 and stage_steps >= 0
    if not in_range or stage_steps % 1:
        numbers = f"{drop_ratio=}, {update_ratio=}, {stage_steps=}"
        ranges = "in [0, 1), in (0, 1], and a whole number from 0"
        raise ValueError(f"{numbers}; they must be {ranges}")


def length(update_ratio: float, stage_steps: int, evidence: Evidence) -> int:
    """Steps of a stage, 1 or more.

    Raises:
      ValueError: `stage_steps` is 0, and so are the run's steps.
    """
    if stage_steps:
        return int(stage_steps)
    if evidence.train_steps < 1:
        raise ValueError("evidence without train_steps; give stage_steps")
    return max(1, int(evidence.train_steps * update_ratio))


def add_square(total: jax.Array, grad: jax.Array, opens: jax.Array) -> jax.Array:
    """The sum of squares with this gradient's, which begins it where a stage opens."""
    return jnp.where(opens, 0, total) + jnp.square(grad)


def largest(scores: Mapping[str, jax.Array], drop_ratio: float) -> dict[str, jax.Array]:
    """Marks of each array the `ceil(n * (1 - drop_ratio))` largest of its n scores."""
    counts = {p: math.ceil(x.size * (1 - drop_ratio)) for p, x in scores.items()}
    return top_k_traced.masks(scores, counts)
