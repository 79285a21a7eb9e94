"""Folds: what a candidate is trained on and what it is valued on; never test."""

from typing import NamedTuple

import numpy as np


class Fold(NamedTuple):
    """One training of every candidate.

    Attributes:
      number: its place among the folds.
      seed: of its head and of the order of its batches.
      train, held: places in the training examples followed by the validation ones.
    """

    number: int
    seed: int
    train: np.ndarray
    held: np.ndarray


def cut(
    train: np.ndarray, validation: np.ndarray, count: int, seeds: list[int]
) -> tuple[Fold, ...]:
    """The folds of every seed: `count` of them, or one where `count` is 0.

    With `count` 0 a candidate is trained on the training split and valued on the
    validation split. Otherwise both together are cut into `count` disjoint stratified
    parts, drawn from the seed; each part is held out once. Parts differ by one example
    at most, in all and of each class. (SubTuning's released code draws folds anew, and
    unseeded, for every candidate, so that its folds overlap.)

    Args:
      train: labels of the training split.
      validation: labels of the validation split.
      count: of folds, 0 or 2 and more.
      seeds: one set of folds for each.

    Raises:
      ValueError: there are fewer examples than folds, or none to value on.
    """
    labels = np.concatenate([train, validation])
    folds: list[Fold] = []
    if count > len(labels):
        raise ValueError(f"{count} folds; there are {len(labels)} examples")
    if not count and not len(validation):
        raise ValueError("0 folds; there are no validation examples to value on")
    everything = np.arange(len(labels))
    for seed in seeds:
        parts = _parts(labels, count, seed) if count else [everything[len(train) :]]
        for held in parts:
            rest = np.setdiff1d(everything, held, assume_unique=True)
            folds.append(Fold(len(folds), seed, rest, held))
    return tuple(folds)


def _parts(labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Examples are sorted by class, shuffled within each, and dealt out in turn."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return [np.sort(order[number::count]) for number in range(count)]
