"""Agreement of predictions with labels: Matthews, F1, Pearson, Spearman.

Metrics of whole splits, (logits, labels) -> float, in NumPy and float64. Where nothing
agrees or differs, because all predictions or all labels are the same, they are 0 and
not the NaN of their formulas. A regression's metrics are NaN where a prediction is not
finite: then nothing can be said.

They are the metrics of GLUE: Wang et al., arXiv:1804.07461, table 1.
"""

import numpy as np


def matthews(logits: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation in [-1, 1] of the largest logit with the label.

    Of two classes the coefficient of Matthews (1975), of more its extension by
    Gorodkin, "Comparing two K-category assignments by a K-category correlation
    coefficient" (2004). It is 0 where all predictions, or all labels, are one class.

    Args:
      logits: `[N, C]`; ties go to the first class.
      labels: integers `[N]`.

    >>> matthews(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 0]))
    1.0
    """
    classes = logits.shape[-1]
    guess = np.bincount(np.argmax(logits, axis=-1), minlength=classes).astype(float)
    truth = np.bincount(labels, minlength=classes).astype(float)
    total = float(len(labels))
    right = float(np.sum(np.argmax(logits, axis=-1) == labels))
    # Counts are integers below 2**53: these are exactly 0 where one class has all.
    spread = (total**2 - guess @ guess), (total**2 - truth @ truth)
    if not all(spread):
        return 0.0
    return float((right * total - guess @ truth) / np.sqrt(spread[0] * spread[1]))


def f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """F1 in [0, 1] of class 1 of two: 2 TP / (2 TP + FP + FN).

    The harmonic mean of precision and recall. It is 0 where class 1 is never guessed
    right, also where it is neither guessed nor there.

    Args:
      logits: `[N, 2]`; a tie is class 0.
      labels: integers `[N]`, 0 or 1.
    """
    guess = np.argmax(logits, axis=-1) == 1
    truth = labels == 1
    counted = float(guess.sum() + truth.sum())
    return 2.0 * float((guess & truth).sum()) / counted if counted else 0.0


def first_class_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share in [0, 1] of rows that are right about whether it is class 0.

    Args:
      logits: `[N, C]`; ties go to the first class.
      labels: integers `[N]`; all but 0 count as the same.
    """
    return float(np.mean((np.argmax(logits, axis=-1) == 0) == (labels == 0)))


def pearson(logits: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation in [-1, 1] of predictions `[N, 1]` with numbers `[N]`."""
    guess, truth = _pairs(logits, labels)
    return _correlation(guess, truth) if _finite(guess) else float("nan")


def spearman(logits: np.ndarray, labels: np.ndarray) -> float:
    """Spearman correlation in [-1, 1]: Pearson's, of ranks.

    Of equal numbers each has the mean of their ranks.

    Args:
      logits: predictions `[N, 1]`.
      labels: numbers `[N]`.
    """
    guess, truth = _pairs(logits, labels)
    if not _finite(guess):
        return float("nan")
    return _correlation(_ranks(guess), _ranks(truth))


def mean_squared_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of (prediction - number)^2, at least 0; here lower is better."""
    guess, truth = _pairs(logits, labels)
    return float(np.mean((guess - truth) ** 2)) if _finite(guess) else float("nan")


def _pairs(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(logits, float)[:, 0], np.asarray(labels, float)


def _finite(guess: np.ndarray) -> bool:
    return bool(np.isfinite(guess).all())


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    # Asked of the values: the mean of equal numbers is rounded, and off by a bit.
    if np.all(left == left[:1]) or np.all(right == right[:1]):
        return 0.0
    left, right = left - left.mean(), right - right.mean()
    cosine = (left / np.linalg.norm(left)) @ (right / np.linalg.norm(right))
    return float(np.clip(cosine, -1.0, 1.0))


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """1 for the smallest."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
