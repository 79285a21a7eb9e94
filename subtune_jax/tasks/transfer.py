"""Inference out of domain: train on one set of sentence pairs, test on another.

Does a premise entail a hypothesis? Training and validation are of one set, test is of
another, or of the same for comparison. The classes are those of training: entailment,
neutral, contradiction. SciTail and RTE know only two: entailment and anything else
("neutral" of SciTail, "not_entailment" of RTE). With one of them as test, an answer is
right when it is entailment and should be, or is not and should not be; that metric,
`entailment_accuracy`, then decides on validation too, and in test the label `neutral`
stands for anything else.

Test is the official test part of SNLI, SciTail and SICK, and the official validation
part of MNLI and RTE, whose test labels are hidden. Pairs of SNLI on which its people
did not agree have no label and are left out, in training and test. TFDS does not have
SICK: `path` names its file SICK_test_annotated.txt, from SemEval 2014, task 1.

Source: Zhang et al., "Fine-Tuning Pre-Trained Language Models Effectively by Optimizing
Subnetworks Adaptively" (DPS, NeurIPS 2022), arXiv:2211.01642. Its code trains on 8,000
stratified pairs (`batches.train_examples`), counts a predicted contradiction as neutral
where there are two classes, as here, and evaluates on the validation part of every set.
"""

from pathlib import Path
from typing import Any

import numpy as np

from subtune_jax import Split, Task
from subtune_jax.core import registry
from subtune_jax.data import agreement, text_files, text_tasks, tfds_texts

TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data
CLASSES = ("entailment", "neutral", "contradiction")
NUMBERS = {"entails": 0, "not_entailment": 1} | {
    name: number for number, name in enumerate(CLASSES)
}
TWO_CLASSES = ("scitail", "rte")
INFERENCE = ("premise", "hypothesis")
TRAIN = {"mnli": ("glue/mnli", "train"), "snli": ("snli", "train")}
TEST = {
    "mnli": ("glue/mnli", "validation_matched", INFERENCE),
    "mnli_mismatched": ("glue/mnli", "validation_mismatched", INFERENCE),
    "snli": ("snli", "test", INFERENCE),
    "scitail": ("sci_tail", "test", INFERENCE),
    "rte": ("glue/rte", "validation", ("sentence1", "sentence2")),
}


def make(
    train: str = "mnli",
    test: str = "snli",
    path: str | None = None,
    validation_examples: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
) -> Task:
    """The pair of that name.

    Args:
      train: "mnli" or "snli".
      test: "mnli", "mnli_mismatched", "snli", "scitail", "rte" or "sick".
      path: of the file of SICK, with the columns sentence_A, sentence_B and
        entailment_judgment; of no other test.
      validation_examples: how many are cut from training, 1 or more, stratified; None
        for a tenth of training, at most 2,000.
      seed: of that cut.
      data_dir: the folder where TFDS prepared the sets; None for TFDS's default.

    Raises:
      ValueError: there is no such set, or it is not there.
    """
    registry.check_choice("train", train, TRAIN)
    registry.check_choice("test", test, [*TEST, "sick"])
    if (path is not None) != (test == "sick"):
        hint = "path is of 'sick', whose file SICK_test_annotated.txt it names"
        raise ValueError(f"test={test!r} and path={path!r}; {hint}")
    if path is None:
        dataset, piece, columns = TEST[test]
        answered = _prepared(dataset, piece, columns, data_dir)
    else:
        answered = _sick(Path(path).expanduser())
    whole = _prepared(*TRAIN[train], INFERENCE, data_dir)
    training, validation = text_tasks.hold_out(whole, validation_examples, seed)
    task = Task("transfer", CLASSES, training, validation, answered)
    if test in TWO_CLASSES:
        name, metric = "entailment_accuracy", agreement.first_class_accuracy
        return task._replace(metric_name=name, metric=metric)
    return task


def _prepared(
    dataset: str, piece: str, columns: tuple[str, str], data_dir: str | None
) -> Split:
    split, names = tfds_texts.split(dataset, piece, columns, data_dir=data_dir)
    numbers = np.array([NUMBERS[name] for name in names], np.int32)
    return split._replace(labels=numbers[split.labels])


def _sick(file: Path) -> Split:
    columns = ("sentence_A", "sentence_B", "entailment_judgment")
    table = text_files.read(file, *columns)
    for label, place in zip(table.labels, table.places, strict=True):
        if label.lower() not in CLASSES:
            what = f"{place}: label {label!r} is no class"
            raise ValueError(f"{what}; {registry.near(label.lower(), CLASSES)}")
    labels = [NUMBERS[label.lower()] for label in table.labels]
    return text_tasks.split(table, np.array(labels, np.int32))
