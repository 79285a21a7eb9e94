"""Handwritten digits of scikit-learn: 1,797 images of 8 x 8 pixels, for smoke tests."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from subtune_jax import Task
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """The digits 0 to 9.

    Args:
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the cut.

    Raises:
      ValueError: scikit-learn is not installed.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        what = f"task 'digits' needs {error.name}"
        raise ValueError(f"{what}; it comes with `pip install scikit-learn`") from error
    table = datasets.load_digits()
    pixels = np.round(table.images * (255 / 16)).astype(np.uint8)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.repeat(pixels[index])}

    return splits.task(
        "digits",
        tuple("0123456789"),
        read,
        table.target,
        fractions=fractions,
        seed=seed,
    )
