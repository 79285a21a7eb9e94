"""Solar cells: is an electroluminescence photo that of a defective cell?

2,624 grey photos of 300 x 300 pixels; experts gave each a probability of defect of 0,
1/3, 2/3 or 1. No two photos are pixel-identical.

Source: the elpv data set, CC-BY-NC-SA-4.0: not for commercial use.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Task, fetch
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
CLASSES = ("functional", "defective")


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """Defective is a probability of 1/2 or more.

    Args:
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the cut.
    """
    folder = fetch.path("elpv")
    rows = [row.split() for row in (folder / "labels.csv").read_text().splitlines()]
    labels = np.array([float(probability) >= 0.5 for _, probability, _ in rows])

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.read(folder / rows[index][0])}

    return splits.task("elpv", CLASSES, read, labels, fractions=fractions, seed=seed)


def write_sample(folder: Path) -> dict[str, Any]:
    """Files as the data set has them: 24 photos of noise, half of them defective."""
    rng, rows = np.random.default_rng(0), []
    for number in range(24):
        name = f"images/cell{number:04d}.png"
        images.write(folder / name, rng.integers(0, 256, (6, 6), np.uint8))
        rows.append(f"{name} {number % 4 / 3} mono\n")
    (folder / "labels.csv").write_text("".join(rows))
    return {}
