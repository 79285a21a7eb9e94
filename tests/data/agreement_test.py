"""Metrics of classes and of numbers, against their definitions in plain loops."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtune_jax.core import losses
from subtune_jax.data import agreement

COUNTS = st.integers(2, 40)
SEEDS = st.integers(0, 2**31)


def answers(seed, count, classes):
    """Logits and labels that agree somewhat."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += rng.uniform(-1, 2)
    return logits.astype(np.float32), labels.astype(np.int32)


def binary_counts(logits, labels):
    counts = {(g, t): 0 for g in (0, 1) for t in (0, 1)}
    for row, label in zip(logits, labels, strict=True):
        counts[int(row[1] > row[0]), int(label)] += 1
    return counts[1, 1], counts[1, 0], counts[0, 1], counts[0, 0]  # TP, FP, FN, TN


@given(SEEDS, COUNTS)
def test_matthews_of_two_classes_is_the_phi_coefficient(seed, count):
    logits, labels = answers(seed, count, 2)
    tp, fp, fn, tn = binary_counts(logits, labels)
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    expected = (tp * tn - fp * fn) / below if below else 0.0
    assert agreement.matthews(logits, labels) == pytest.approx(expected, abs=1e-12)


@given(SEEDS, COUNTS, st.integers(2, 5))
def test_matthews_of_many_classes_is_the_correlation_of_indicators(
    seed, count, classes
):
    logits, labels = answers(seed, count, classes)
    guess = np.eye(classes)[logits.argmax(1)]
    truth = np.eye(classes)[labels]

    def covariance(one, other):
        total = 0.0
        for k in range(classes):
            a, b = one[:, k] - one[:, k].mean(), other[:, k] - other[:, k].mean()
            total += sum(a[i] * b[i] for i in range(count))
        return total

    below = math.sqrt(covariance(guess, guess) * covariance(truth, truth))
    expected = covariance(guess, truth) / below if below > 1e-9 else 0.0
    assert agreement.matthews(logits, labels) == pytest.approx(expected, abs=1e-9)


@given(SEEDS, COUNTS)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(seed, count):
    logits, labels = answers(seed, count, 2)
    tp, fp, fn, _ = binary_counts(logits, labels)
    expected = 0.0
    if tp:
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        expected = 2 * precision * recall / (precision + recall)
    assert agreement.f1(logits, labels) == pytest.approx(expected, abs=1e-12)


@given(SEEDS, COUNTS)
def test_first_class_accuracy_counts_all_other_classes_as_one(seed, count):
    logits, labels = answers(seed, count, 3)
    right = 0
    for row, label in zip(logits, labels, strict=True):
        guess = [i for i in range(3) if row[i] == max(row)][0]
        right += min(guess, 1) == min(label, 1)
    share = agreement.first_class_accuracy(logits, labels)
    assert share == pytest.approx(right / count, abs=1e-12)


def numbers(seed, count, ties):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=count)
    guess = labels * rng.uniform(-1, 1) + rng.normal(size=count)
    if ties:
        labels, guess = labels.round(), guess.round()
    return guess[:, None].astype(np.float32), labels.astype(np.float32)


def correlation(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    both = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    xx, yy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    return both / math.sqrt(xx * yy) if len(set(x)) > 1 < len(set(y)) else 0.0


def ranks(x):
    """Each number's rank from 1; the mean rank of those that are equal to it."""
    below = [sum(other < one for other in x) for one in x]
    equal = [sum(other == one for other in x) for one in x]
    return [b + (e + 1) / 2 for b, e in zip(below, equal, strict=True)]


@given(SEEDS, COUNTS, st.booleans())
def test_pearson_and_spearman_are_their_definitions_ties_too(seed, count, ties):
    logits, labels = numbers(seed, count, ties)
    guess, truth = logits[:, 0].tolist(), labels.tolist()
    expected = correlation(guess, truth), correlation(ranks(guess), ranks(truth))
    assert agreement.pearson(logits, labels) == pytest.approx(expected[0], abs=1e-9)
    assert agreement.spearman(logits, labels) == pytest.approx(expected[1], abs=1e-9)


@given(SEEDS, COUNTS)
def test_the_mean_squared_error_is_that(seed, count):
    logits, labels = numbers(seed, count, False)
    pairs = zip(logits[:, 0].tolist(), labels.tolist(), strict=True)
    expected = sum((a - b) ** 2 for a, b in pairs) / count
    error = agreement.mean_squared_error(logits, labels)
    assert error == pytest.approx(expected, rel=1e-9)


def test_the_metrics_are_those_of_other_libraries():
    metrics = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    for seed in range(5):
        logits, labels = answers(seed, 50, 4)
        expected = metrics.matthews_corrcoef(labels, logits.argmax(1))
        assert agreement.matthews(logits, labels) == pytest.approx(expected)
        logits, labels = answers(seed, 50, 2)
        expected = metrics.f1_score(labels, logits.argmax(1))
        assert agreement.f1(logits, labels) == pytest.approx(expected)
        logits, labels = numbers(seed, 50, ties=True)
        expected = stats.pearsonr(logits[:, 0].astype(float), labels.astype(float))[0]
        assert agreement.pearson(logits, labels) == pytest.approx(expected)
        expected = stats.spearmanr(logits[:, 0], labels)[0]
        assert agreement.spearman(logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.1, 0.0, 1e30, 7.3])
@pytest.mark.parametrize("metric", [agreement.pearson, agreement.spearman])
def test_a_correlation_with_a_constant_is_zero(metric, value):
    constant = np.full(7, value, np.float32)  # the mean of seven times .1 is not .1
    varied = np.arange(7, dtype=np.float32)
    assert metric(constant[:, None], varied) == 0.0
    assert metric(varied[:, None], constant) == 0.0
    assert metric(varied[:1, None], varied[:1]) == 0.0


def test_a_metric_of_one_class_only_is_zero():
    always = np.tile([0.0, 1.0], (5, 1))
    mixed = np.array([0, 1, 1, 0, 1])
    assert agreement.matthews(always, mixed) == 0.0
    assert agreement.matthews(np.eye(2)[mixed], np.ones(5, int)) == 0.0
    assert agreement.f1(-always, mixed) == 0.0
    assert agreement.f1(-always, np.zeros(5, int)) == 0.0


@pytest.mark.parametrize("sign", [1, -1])
def test_agreement_without_a_fault_is_exactly_one(sign):
    labels = np.array([0.3, -2.0, 5.5, 0.1], np.float32)
    for metric in (agreement.pearson, agreement.spearman):
        assert metric(sign * 3 * labels[:, None], labels) == pytest.approx(sign)
        assert abs(metric(sign * 3 * labels[:, None], labels)) <= 1
    classes = np.array([0, 1, 1, 0, 1])
    assert agreement.matthews(sign * np.eye(2)[classes], classes) == sign


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_have_no_correlation(bad):
    logits = np.array([[0.0], [bad], [1.0]], np.float32)
    labels = np.array([0.0, 1.0, 2.0], np.float32)
    for metric in (
        agreement.pearson,
        agreement.spearman,
        agreement.mean_squared_error,
    ):
        assert math.isnan(metric(logits, labels))


def test_the_squared_loss_and_its_gradient_are_those_of_the_formula():
    logits = np.array([[1.0], [-2.0], [0.5]], np.float32)
    targets = np.array([[0.0], [1.0], [0.5]], np.float32)
    np.testing.assert_array_equal(losses.squared(logits, targets), [1.0, 9.0, 0.0])
    half = losses.squared(jax.numpy.asarray(logits, "bfloat16"), targets)
    assert half.dtype == np.float32 and half.shape == (3,)
    grads = jax.grad(lambda x: losses.squared(x, targets).sum())(logits)
    np.testing.assert_array_equal(grads, 2 * (logits - targets))
