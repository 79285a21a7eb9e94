"""Handwritten digits: 5,000 images of MNIST, 500 of each digit, 28 x 28 pixels."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Task, fetch
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
FILE = "mnist_5k.csv.gz"


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """The digits 0 to 9.

    Args:
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the cut.
    """
    # One row an image: 784 pixels, then the digit.
    text = gzip.decompress((fetch.path("mnist5k") / FILE).read_bytes())
    numbers = np.array(text.decode().replace("\n", ",").rstrip(",").split(","), float)
    table = numbers.reshape(-1, 28 * 28 + 1).astype(np.uint8)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.repeat(table[index, :-1].reshape(28, 28))}

    return splits.task(
        "mnist5k",
        tuple("0123456789"),
        read,
        table[:, -1],
        fractions=fractions,
        seed=seed,
    )


def write_sample(folder: Path) -> dict[str, Any]:
    """The file as the data set has it: 100 images of noise."""
    table = np.random.default_rng(0).integers(0, 256, (100, 28 * 28 + 1))
    table[:, -1] = np.arange(len(table)) % 10
    text = "".join(",".join(map(str, row)) + "\n" for row in table)
    (folder / FILE).write_bytes(gzip.compress(text.encode()))
    return {}
