"""Folds: what a candidate is trained on and what it is valued on; never test."""

from typing import NamedTuple

import numpy as np


class Options(NamedTuple):
    """How candidates are valued; see `make`."""

    folds: int
    seeds: int
    halving: int
    least_steps: int
    memory_gib: float
    disk_gib: float


def make(
    folds: int = 0,
    seeds: int = 1,
    halving: int = 0,
    least_steps: int = 10,
    memory_gib: float = 2.0,
    disk_gib: float = 16.0,
) -> Options:
    """Options of trials.

    Args:
      folds: k of a k-fold cross-validation over training and validation examples
        together, stratified and disjoint; 0 to train on the training split and value
        on the validation split.
      seeds: how often each candidate is trained on each fold, from another head, in
        another order (and with other folds).
      halving: successive halving (arXiv:1502.07943): candidates are trained in rounds,
        and of each round the best 1 / `halving` by held-out loss go on; 0 to train each
        to its end.
      least_steps: before a candidate may be dropped by halving: below ten or so, and
        while the rate warms up, values say little.
      memory_gib: bound on what the activations of the trunk take in memory, in GiB.
      disk_gib: bound on what they take on disk beyond that.

    Raises:
      ValueError: a number is out of its range.
    """
    for name, value in (("folds", folds), ("halving", halving)):
        if value < 0 or value == 1:
            raise ValueError(f"trials {name}={value}; it must be 0, or 2 or more")
    if seeds < 1:
        raise ValueError(f"trials seeds={seeds}; it must be 1 or more")
    if not (memory_gib >= 0 and disk_gib >= 0):
        given = f"memory_gib={memory_gib}, disk_gib={disk_gib}"
        raise ValueError(f"trials {given}; they must be 0 or more")
    return Options(folds, seeds, halving, least_steps, memory_gib, disk_gib)


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
    labels, found = np.concatenate([train, validation]), []
    if count > len(labels):
        raise ValueError(f"{count} folds; there are {len(labels)} examples")
    if not count and not len(validation):
        raise ValueError("0 folds; there are no validation examples to value on")
    everything = np.arange(len(labels))
    for seed in seeds:
        parts = _parts(labels, count, seed) if count else [everything[len(train) :]]
        for held in parts:
            rest = np.setdiff1d(everything, held, assume_unique=True)
            found.append(Fold(len(found), seed, rest, held))
    return tuple(found)


def _parts(labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Examples are sorted by class, shuffled within each, and dealt out in turn."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return [np.sort(order[number::count]) for number in range(count)]
