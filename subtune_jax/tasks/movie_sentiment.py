"""Film reviews: is a sentence for or against the film, by people's ratings?

10,605 sentences of reviews on rotten.tomatoes.com, each rated by about 20 people from
-4 to 4; the label is the sign of their mean. 37 sentences whose mean is exactly 0 have
no sign and are left out, except from the regression. Two sentences come twice: the
first of each is kept.

Source: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text", ICWSM 2014, after the reviews of Pang and Lee; MIT.
"""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Task, fetch
from subtune_jax.data import splits, text_tasks
from subtune_jax.fetch import archives

TINY: dict[str, Any] = {}  # no form is smaller; the files may be `write_sample`'s
CLASSES = ("negative", "positive")
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MOST_BYTES = 1 << 24  # there are 1.4 million


def make(
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    regression: bool = False,
    seed: int = 0,
) -> Task:
    """The sign of the mean rating, or the mean rating itself.

    Args:
      fractions: of training, validation and test, which sum to 1; stratified.
      regression: whether to learn the mean rating, in [-4, 4].
      seed: of the cut.
    """
    archive = fetch.path("movie_sentiment") / ARCHIVE
    lines = archives.read(archive, FILE, MOST_BYTES).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]  # number, rating, sentence
    ratings = np.array([float(rating) for _, rating, _ in rows])
    texts = [" ".join(sentence.split()) for _, _, sentence in rows]
    kept = splits.distinct(texts, np.sign(ratings))
    if not regression:
        kept = kept[ratings[kept] != 0]

    def read(index: int) -> dict[str, Any]:
        return {"text": texts[kept[index]]}

    classes = ("rating",) if regression else CLASSES
    labels = ratings[kept] if regression else (ratings[kept] > 0).astype(int)
    task = splits.task(
        "movie_sentiment", classes, read, labels, fractions=fractions, seed=seed
    )
    return text_tasks.regression(task) if regression else task


def write_sample(folder: Path) -> dict[str, Any]:
    """The archive as the data set has it: 40 sentences for and against."""
    rows = [
        f"{number}\t{(-1) ** number * (1 + number / 20)}\tsentence {number}\n"
        for number in range(40)
    ]
    content = "".join(rows).encode()
    member = tarfile.TarInfo(FILE)
    member.size = len(content)
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return {}
