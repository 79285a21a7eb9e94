"""Representation drift: how far tuning has moved the features from the base's."""

import numpy as np

from subtune_jax.core.contracts import HEAD, Variables
from subtune_jax.data import dataset
from subtune_jax.data.dataset import Examples
from subtune_jax.training import prediction
from subtune_jax.training.setup import Setup


def measure(setup: Setup, tuned: Variables, examples: Examples, count: int) -> float:
    """The mean distance of features from the base's, by the length of the latter.

    Args:
      setup: with the base.
      tuned: the network after training.
      examples: of any split; the first `count` of them are read.
      count: 1 or more.

    Returns:
      The mean of `|f(x) - f0(x)| / |f0(x)|`, 0 for the base itself; features are what
      enters the head.
    """
    size = min(count, len(examples.labels))
    few = dataset.part(examples, np.arange(size))
    before, after = (
        prediction.frozen(setup, variables, stop=HEAD)(few).reshape(size, -1)
        for variables in (setup.variables, tuned)
    )
    far = np.linalg.norm(after - before, axis=1)
    return float(np.mean(far / np.linalg.norm(before, axis=1)))
