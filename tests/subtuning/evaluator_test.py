"""Promises of the evaluator, with scripted trials in place of training."""

from types import SimpleNamespace

import pytest

from subtune_jax.subtuning import evaluator, journal, trials
from subtune_jax.subtuning.candidates import Candidate

LAST = 16
# name -> steps -> (loss, metric): early, and at the end, the two disagree.
SCRIPT = {
    "poor": {8: (0.9, 0.9), 16: (0.1, 0.1)},
    "good": {8: (0.6, 0.2), 16: (0.9, 0.8)},
    "fair": {8: (0.5, 0.1), 16: (0.2, 0.7)},
    "last": {8: (0.8, 0.8), 16: (0.1, 0.9)},
}
SETS = [(name,) for name in SCRIPT]


@pytest.fixture
def asked(monkeypatch):
    """Trials that follow the script; (name, fold, steps) of each."""
    found = []

    def value(testbed, candidate, number, until):
        (name,) = candidate.trained
        found.append((name, number, until))
        loss, metric = SCRIPT[name][until]
        tilt = (-0.1, 0.1)[number]  # the mean of both folds is the script's
        return trials.Value(metric + tilt, loss - tilt, until, until, 1.0, 1.0, 1.0)

    monkeypatch.setattr(trials, "value", value)
    monkeypatch.setattr(trials, "trainable", lambda testbed, candidate: 7)
    return found


def opened(folder, halving):
    testbed = SimpleNamespace(
        setup=SimpleNamespace(settings={"train_steps": LAST}),
        folds=[SimpleNamespace(number=number) for number in range(2)],
    )
    options = trials.make(halving=halving, least_steps=8)
    return evaluator.Evaluator(testbed, journal.read(folder), options, Candidate)


def test_sets_are_dropped_by_their_loss_and_valued_by_their_metric(asked, tmp_path):
    found = evaluator.values(opened(tmp_path, 2), SETS)
    assert found == pytest.approx({("good",): 0.8, ("fair",): 0.7})
    early, late = ([x for x in asked if x[2] == until] for until in (8, 16))
    assert early == [(name, fold, 8) for name in SCRIPT for fold in (0, 1)]
    assert late == [(name, fold, 16) for name in ("good", "fair") for fold in (0, 1)]


def test_without_halving_the_loss_decides_nothing(asked, tmp_path):
    found = evaluator.values(opened(tmp_path, 0), SETS)
    assert found == pytest.approx({(n,): SCRIPT[n][16][1] for n in SCRIPT})
    assert asked == [(name, fold, 16) for name in SCRIPT for fold in (0, 1)]


def test_a_row_has_what_a_set_reached_last(asked, tmp_path):
    evaluation = opened(tmp_path, 2)
    evaluator.values(evaluation, SETS)
    row = evaluator.row(evaluation, ("poor",))
    assert (row["steps"], row["trainable"]) == (8, 7)
    assert row["values"] == pytest.approx([0.8, 1.0])
    assert (row["mean"], row["loss"]) == pytest.approx((0.9, 0.9))
    assert evaluator.row(evaluation, ("good",))["loss"] == pytest.approx(0.9)


def test_what_is_on_record_is_not_tried_again_unless_it_has_no_loss(asked, tmp_path):
    first = evaluator.values(opened(tmp_path, 2), SETS)
    done = len(asked)
    assert evaluator.values(opened(tmp_path, 2), SETS) == first
    assert len(asked) == done
    path = tmp_path / journal.NAME  # as earlier versions wrote the first record
    head, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(head.replace('"loss"', '"other"') + "".join(rest))
    assert evaluator.values(opened(tmp_path, 2), SETS) == first
    assert asked[done:] == [("poor", 0, 8)]


def test_a_row_of_an_older_journal_is_what_was_tried_since(asked, tmp_path):
    evaluation = opened(tmp_path, 2)
    evaluator.values(evaluation, SETS)
    old = {"value": 0.9, "steps": 16, "trained": 16, "seconds": 1.0, "step_flops": 1.0}
    for fold in (0, 1):  # by its metric the set had gone on
        journal.write(
            evaluation.journal, evaluator._key(Candidate(("poor",)), fold, 16), old
        )
    assert evaluator.row(opened(tmp_path, 2), ("poor",))["steps"] == 8
