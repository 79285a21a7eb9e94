"""GLUE: eight tasks of sentences and sentence pairs, as TFDS has prepared them.

GLUE keeps the labels of its test parts to itself. So test is the official validation
part, on which papers report, and validation is cut from the official training part; it
decides when to stop and what to choose, so that test decides nothing. Sentences that
come twice in GLUE are left as they are.

Each task has GLUE's own metrics. Of two, the first decides: accuracy before F1, Pearson
before Spearman. For few training examples use `batches.train_examples`.

Source: Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural
Language Understanding", arXiv:1804.07461. Its ninth task, WNLI, has validation pairs
that contradict its training pairs on purpose, and is left out as usual.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from subtune_jax import Task
from subtune_jax.core import losses, registry
from subtune_jax.data import agreement, text_tasks, tfds_texts

Metric = Callable[[np.ndarray, np.ndarray], float]
TINY: dict[str, Any] = {}  # no form is smaller; TFDS prepares or mocks the data
ONE = ("sentence",)
TWO = ("sentence1", "sentence2")
INFERENCE = ("premise", "hypothesis")


class Preset(NamedTuple):
    """The columns of a task, and the metrics of classes."""

    columns: tuple[str, ...]
    metric_name: str = "accuracy"
    metric: Metric = losses.accuracy
    also: Mapping[str, Metric] = {}


PRESETS = {
    "cola": Preset(ONE, "matthews", agreement.matthews, {"accuracy": losses.accuracy}),
    "sst2": Preset(ONE),
    "mrpc": Preset(TWO, also={"f1": agreement.f1}),
    "qqp": Preset(("question1", "question2"), also={"f1": agreement.f1}),
    "stsb": Preset(TWO),
    "mnli": Preset(INFERENCE),
    "qnli": Preset(("question", "sentence")),
    "rte": Preset(TWO),
}


def make(
    dataset: str = "sst2",
    mismatched: bool = False,
    validation_examples: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
) -> Task:
    """The task of that name; "stsb" is a regression, in [0, 5].

    Args:
      dataset: one of the eight names in `PRESETS`.
      mismatched: of "mnli" only: whether test is of other genres than training.
      validation_examples: how many are cut from training, 1 or more, stratified; None
        for a tenth of training, at most 2,000.
      seed: of that cut.
      data_dir: the folder where TFDS prepared it; None for TFDS's default.

    Raises:
      ValueError: there is no such task, or it is not prepared.
    """
    if dataset not in PRESETS:
        known = registry.near(dataset, PRESETS)
        raise ValueError(f"no task of GLUE named {dataset!r}; {known}")
    if mismatched and dataset != "mnli":
        raise ValueError(
            f"mismatched=True; only 'mnli' has such pairs, not {dataset!r}"
        )
    preset, name, test = PRESETS[dataset], f"glue/{dataset}", "validation"
    if dataset == "mnli":
        test += "_mismatched" if mismatched else "_matched"
    whole, classes = tfds_texts.split(name, "train", preset.columns, data_dir=data_dir)
    train, validation = text_tasks.hold_out(whole, validation_examples, seed)
    answered, _ = tfds_texts.split(name, test, preset.columns, data_dir=data_dir)
    if not classes:
        task = Task("glue", ("score",), train, validation, answered)
        return text_tasks.regression(task)
    metrics = (losses.cross_entropy, preset.metric_name, preset.metric, preset.also)
    return Task("glue", classes, train, validation, answered, *metrics)
