"""Solar cells: is an electroluminescence photo that of a defective cell?

2,624 grey photos of 300 x 300 pixels; experts gave each a probability of defect of 0,
1/3, 2/3 or 1. No two photos are pixel-identical.

Source: the elpv data set, CC-BY-NC-SA-4.0: not for commercial use.
"""

from collections.abc import Sequence

import numpy as np

from subtune_jax import fetch
from subtune_jax.core.contracts import Task
from subtune_jax.data import images, splits

CLASSES = ("functional", "defective")


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """Defective is a probability of 1/2 or more.

    Args:
      fractions: of training, validation and test, stratified.
      seed: of the cut.
    """
    folder = fetch.path("elpv")
    rows = [row.split() for row in (folder / "labels.csv").read_text().splitlines()]
    labels = np.array([float(probability) >= 0.5 for _, probability, _ in rows])

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.read(folder / rows[index][0])}

    return splits.task("elpv", CLASSES, read, labels, fractions=fractions, seed=seed)
