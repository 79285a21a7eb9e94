"""Drift and the bar that a run must pass, against their literal statements."""

import jax
import numpy as np
import pytest

from subtune_jax.commands import configs
from subtune_jax.core import losses
from subtune_jax.data import dataset
from subtune_jax.training import drift, results, setup


@pytest.fixture(scope="module")
def made():
    given = {
        "task": {"name": "structured", "examples": 200, "image_size": 16},
        "backbone": {"name": "mlp", "image_size": 16, "widths": (8, 8)},
        "method": {"name": "head"},
        "batch_size": 16,
    }
    return setup.prepare(configs.complete(given))


def features(made, params, count):
    images = dataset.normalize(made.backbone, made.validation.read(np.arange(count)))
    return made.backbone.apply(params, made.variables.stats, images, stop="head")[0]


def test_drift_is_the_mean_relative_distance_of_the_features(made):
    assert drift.measure(made, made.variables, made.validation, 9) == 0
    params = jax.tree.map(lambda x: x + np.float32(0.1), made.variables.params)
    tuned = made.variables._replace(params=params)
    before = np.asarray(features(made, made.variables.params, 9), np.float64)
    after = np.asarray(features(made, params, 9), np.float64)
    each = [
        np.sqrt(((a - b) ** 2).sum()) / np.sqrt((b**2).sum())
        for a, b in zip(after, before, strict=True)
    ]
    found = drift.measure(made, tuned, made.validation, 9)
    assert found == pytest.approx(np.mean(each), rel=1e-4)


def test_the_bar_is_the_most_frequent_class_of_training(made):
    labels = np.array([1, 2, 2, 0, 2, 1], np.int32)
    skewed = made._replace(train=made.train._replace(labels=labels))
    guesses = results.constant(skewed, 4).argmax(1)
    assert guesses.tolist() == [2, 2, 2, 2]
    assert losses.accuracy(results.constant(skewed, 6), labels) == 0.5
