"""Emoji: which of nine categories does a drawing of 64 x 64 pixels belong to?

1,906 base emoji. Their 1,875 variants of skin tone are left out, and so are the five
swatches of skin colour (category "Component"). Of pixel-identical drawings one is
kept, or none where their categories differ.

Source: Google's Noto emoji, images Apache-2.0.
"""

import json
from collections.abc import Sequence

import numpy as np

from subtune_jax import fetch
from subtune_jax.core.contracts import Task
from subtune_jax.data import images, splits

CLASSES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)


def make(fractions: Sequence[float] = (0.6, 0.15, 0.25), seed: int = 0) -> Task:
    """The nine categories.

    Args:
      fractions: of training, validation and test, stratified.
      seed: of the cut.
    """
    folder = fetch.path("emoji")
    table = json.loads((folder / "emoji.json").read_text("utf-8"))
    rows = [row for row in table if row["category"] in CLASSES]
    rows.sort(key=lambda row: row["image"])
    drawings = [images.read(folder / "img/google/64" / row["image"]) for row in rows]
    labels = np.array([CLASSES.index(row["category"]) for row in rows])
    kept = splits.distinct([images.digest(drawing) for drawing in drawings], labels)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": drawings[kept[index]]}

    return splits.task(
        "emoji", CLASSES, read, labels[kept], fractions=fractions, seed=seed
    )
