"""Fashion-MNIST: ten kinds of clothes, 28 x 28 pixels, the official test split."""

import functools
import gzip
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Split, Task, fetch
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
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

LABELS, IMAGES = "{}-labels-idx1-ubyte.gz", "{}-images-idx3-ubyte.gz"


def make(validation: float = 0.1, seed: int = 0) -> Task:
    """60,000 images for training and validation, 10,000 for test.

    Args:
      validation: fraction in (0, 1) cut from the training images, stratified.
      seed: of the cut.
    """
    folder = fetch.path("fashion_mnist")
    whole, test = _split(folder, "train"), _split(folder, "t10k")
    pieces = splits.stratified(whole.labels, [1 - validation, validation], seed)
    train, held_out = (splits.part(whole.read, whole.labels, piece) for piece in pieces)
    return Task("fashion_mnist", CLASSES, train, held_out, test)


def _split(folder: Path, name: str) -> Split:
    labels = _numbers(folder / LABELS.format(name), header=8)

    @functools.cache  # 47 MB, unpacked when the first image is read
    def pixels() -> np.ndarray:
        flat = _numbers(folder / IMAGES.format(name), header=16)
        return flat.reshape(-1, 28, 28)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": images.repeat(pixels()[index])}

    return Split(read, splits.checked(labels, len(CLASSES), f"fashion_mnist {name}"))


def _numbers(file: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)


def write_sample(folder: Path) -> dict[str, Any]:
    """Files as the data set has them: 100 images of noise for training, 20 for test."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 100), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % len(CLASSES)
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        for file, header, numbers in ((LABELS, 8, labels), (IMAGES, 16, pixels)):
            packed = gzip.compress(bytes(header) + numbers.tobytes())
            (folder / file.format(name)).write_bytes(packed)
    return {}
