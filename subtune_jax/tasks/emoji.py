"""Emoji: which of nine categories does a drawing of 64 x 64 pixels belong to?

1,906 base emoji. Their 1,875 variants of skin tone are left out, and so are the five
swatches of skin colour (category "Component"). Of pixel-identical drawings one is
kept, or none where their categories differ.

Source: Google's Noto emoji, images Apache-2.0.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Task, fetch
from subtune_jax.data import images, splits

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
FOLDER = "img/google/64"
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
      fractions: of training, validation and test, which sum to 1; stratified.
      seed: of the cut.
    """
    folder = fetch.path("emoji")
    table = json.loads((folder / "emoji.json").read_text("utf-8"))
    rows = [row for row in table if row["category"] in CLASSES]
    rows.sort(key=lambda row: row["image"])
    drawings = [images.read(folder / FOLDER / row["image"]) for row in rows]
    labels = np.array([CLASSES.index(row["category"]) for row in rows])
    kept = splits.distinct([images.digest(drawing) for drawing in drawings], labels)

    def read(index: int) -> dict[str, np.ndarray]:
        return {"image": drawings[kept[index]]}

    return splits.task(
        "emoji", CLASSES, read, labels[kept], fractions=fractions, seed=seed
    )


def write_sample(folder: Path) -> dict[str, Any]:
    """Files as the data set has them: eight drawings of noise in each category."""
    rng, rows = np.random.default_rng(0), []
    for number in range(8 * len(CLASSES)):
        name = f"{number:04x}.png"
        drawing = rng.integers(0, 256, (6, 6, 3), np.uint8)
        images.write(folder / FOLDER / name, drawing)
        rows.append({"category": CLASSES[number % len(CLASSES)], "image": name})
    (folder / "emoji.json").write_text(json.dumps(rows))
    return {}
