"""Fashion-MNIST: ten kinds of clothes, 28 x 28 pixels, the official test split."""

import functools
import gzip
from pathlib import Path

import numpy as np

from subtune_jax import fetch
from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import images, splits

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def make(validation: float = 0.1, seed: int = 0) -> Task:
    """60,000 images for training and validation, 10,000 for test.

    Args:
      validation: fraction cut from the training images, stratified.
      seed: of the cut.
    """
    folder = fetch.path("fashion_mnist")
    whole, test = _split(folder, "train"), _split(folder, "t10k")
    pieces = splits.stratified(whole.labels, [1 - validation, validation], seed)
    train, held_out = (splits.part(whole.read, whole.labels, piece) for piece in pieces)
    return Task("fashion_mnist", CLASSES, train, held_out, test)


def _split(folder: Path, name: str) -> Split:
    labels = _numbers(folder / f"{name}-labels-idx1-ubyte.gz", header=8)

    @functools.cache  # 47 MB, unpacked when the first image is read
    def pixels() -> np.ndarray:
        flat = _numbers(folder / f"{name}-images-idx3-ubyte.gz", header=16)
        return flat.reshape(-1, 28, 28)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.repeat(pixels()[index])}

    return Split(read, splits.checked(labels, len(CLASSES), f"fashion_mnist {name}"))


def _numbers(file: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)
