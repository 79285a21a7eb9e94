"""Your own texts: a CSV, TSV or JSON lines file, or a folder of such files.

    reviews.csv                              one file, cut into three parts
    reviews/train.csv   reviews/test.csv     without a file `validation` (or `val`,
    reviews/validation.csv                   `dev`) a part of `train` is held out

How files are read, and what is a mistake in them, is said in `data/text_files.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Split, Task
from subtune_jax.core import registry
from subtune_jax.data import splits, text_files, text_tasks
from subtune_jax.data.text_files import Table

TINY: dict[str, Any] = {}  # beside what `write_sample` returns
Load = Callable[[Path], Table]


def make(
    path: str,
    text: str = "text",
    pair: str | None = None,
    label: str = "label",
    regression: bool = False,
    delimiter: str | None = None,
    validation: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
) -> Task:
    """The classes are the labels of training, in sorted order.

    Rows of one file that have the same texts stay in one part. Parts that are files of
    their own are taken as they are.

    Args:
      path: of the file, or of the folder with files `train` and `test`.
      text: the column with the text; it may be empty.
      pair: the column with the second text of sentence pairs; None where there is none.
      label: the column with the label.
      regression: whether labels are numbers, to be learnt as such.
      delimiter: the character between columns; None for that of the file's suffix.
      validation: fraction in (0, 1) cut from the one file, or from training where there
        is no file for it; of a folder also how many examples.
      test: fraction in (0, 1) cut from the one file; a folder has a file for it.
      seed: of the cut.

    Raises:
      ValueError: a file is missing or is not what it should be, training has only one
        class, or another part has a class that training has not.
    """

    def load(file: Path) -> Table:
        options = {"regression": regression, "delimiter": delimiter}
        return text_files.read(file, text, pair, label, **options)

    root = Path(path).expanduser()
    if root.is_dir():
        task = _of_folder(root, load, label, validation, seed)
    else:
        task = _of_file(
            root, load, label, (1 - validation - test, validation, test), seed
        )
    return text_tasks.regression(task) if regression else task


def _of_file(
    file: Path, load: Load, label: str, fractions: tuple[float, ...], seed: int
) -> Task:
    if min(fractions) <= 0:
        what = f"validation={fractions[1]} and test={fractions[2]}"
        raise ValueError(f"{what}; both are above 0 and leave a part for training")
    table = load(file)
    classes = _classes(table, file, label)
    whole = _split(table, classes)
    numbers: dict[tuple[str, ...], int] = {}
    contents = map(text_tasks.content, table.examples)
    groups = [numbers.setdefault(content, len(numbers)) for content in contents]
    task = splits.task(
        "text_file",
        classes,
        whole.read,
        whole.labels,
        fractions=fractions,
        seed=seed,
        groups=np.array(groups),
    )
    if not all(len(part.labels) for part in (task.train, task.validation, task.test)):
        what = f"{file} has {len(numbers)} different examples"
        raise ValueError(f"{what}; fractions {fractions} leave a part empty")
    return task


def _of_folder(
    root: Path, load: Load, label: str, validation: float, seed: int
) -> Task:
    train_file, test_file = _needed(root, "train"), _needed(root, "test")
    validation_file = _file(root, ("validation", "val", "dev"))
    table = load(train_file)
    classes = _classes(table, train_file, label)
    train, test = _split(table, classes), _split(load(test_file), classes)
    if validation_file is None:
        train, held_out = text_tasks.hold_out(train, validation, seed)
    else:
        held_out = _split(load(validation_file), classes)
    return Task("text_file", classes, train, held_out, test)


def _needed(root: Path, stem: str) -> Path:
    file = _file(root, (stem,))
    if file is None:
        there = ", ".join(sorted(other.name for other in root.iterdir())) or "nothing"
        ends = ", ".join(text_files.SUFFIXES)
        raise ValueError(f"{root} has no file {stem} with {ends}; there is {there}")
    return file


def _file(root: Path, stems: tuple[str, ...]) -> Path | None:
    names = [f"{stem}{suffix}" for stem in stems for suffix in text_files.SUFFIXES]
    files = [root / name for name in names if (root / name).is_file()]
    if len(files) > 1:
        raise ValueError(f"{root} has both {files[0].name} and {files[1].name}")
    return files[0] if files else None


def _classes(table: Table, file: Path, label: str) -> tuple[str, ...]:
    """Names of the classes; of a regression that of the column."""
    if isinstance(table.labels[0], float):
        return (label,)
    classes = tuple(sorted(set(table.labels)))
    if len(classes) < 2:
        raise ValueError(f"{file} has only the class {classes[0]!r}; two are the least")
    return classes


def _split(table: Table, classes: tuple[str, ...]) -> Split:
    if isinstance(table.labels[0], float):
        return text_tasks.split(table, np.array(table.labels, np.float32))
    numbers = {name: number for number, name in enumerate(classes)}
    for label, place in zip(table.labels, table.places, strict=True):
        if label not in numbers:
            known = registry.near(label, classes)
            raise ValueError(f"{place}: label {label!r} is not in training; {known}")
    labels = [numbers[label] for label in table.labels]
    return text_tasks.split(table, np.array(labels, np.int32))


def write_sample(folder: Path) -> dict[str, Any]:
    """One file of 40 sayings in two classes, whose names are numbers as well."""
    rows = [f"saying {number}\t{number % 2}\n" for number in range(40)]
    file = folder / "sayings.tsv"
    file.write_text("".join(["text\tlabel\n", *rows]), "utf-8")
    return {"path": str(file)}
