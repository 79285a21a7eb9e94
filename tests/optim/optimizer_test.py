"""Optimisers by name: schedules, decay, depth, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.optim import optimizer

BLOCKS = ("stem", "block01", "head")


def moved(made, values, grads, steps=10, count=1):
    transform = made.transform(steps, BLOCKS)
    state = transform.init(values)
    for _ in range(count):
        updates, state = transform.update(grads, state, values)
        values = {path: values[path] + updates[path] for path in values}
    return values


def test_the_rate_grows_linearly_and_falls_as_a_cosine():
    rate = optimizer.make(learning_rate=2.0, warmup_steps=4).schedule(12)
    assert [float(rate(s)) for s in range(5)] == pytest.approx([0, 0.5, 1, 1.5, 2])
    for step in range(4, 12):
        expected = 1 + np.cos(np.pi * (step - 4) / 8)
        assert float(rate(step)) == pytest.approx(expected, abs=1e-6)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert float(optimizer.make(learning_rate=0.3).schedule(5)(0)) == pytest.approx(0.3)


def test_sgd_follows_its_definition():
    made = optimizer.make("sgd", learning_rate=0.1, momentum=0.5)
    rate = made.schedule(10)
    grads = {"stem/kernel": jnp.asarray([1.0, -2.0])}
    found = moved(made, {"stem/kernel": jnp.zeros(2)}, grads, count=3)
    speed, expected = np.zeros(2), np.zeros(2)
    for step in range(3):
        speed = 0.5 * speed + np.asarray([1.0, -2.0])
        expected -= float(rate(step)) * speed
    np.testing.assert_allclose(found["stem/kernel"], expected, rtol=1e-6)


def test_decay_takes_kernels_only():
    made = optimizer.make(learning_rate=0.1, weight_decay=0.5)
    values = {"stem/kernel": jnp.ones(1), "stem/bias": jnp.ones(1)}
    after = moved(made, values, {path: jnp.zeros(1) for path in values})
    assert float(after["stem/bias"][0]) == 1.0
    assert float(after["stem/kernel"][0]) == pytest.approx(1 - 0.1 * 0.5)


def test_the_rate_decays_once_for_every_block_above():
    made = optimizer.make("sgd", learning_rate=1.0, layer_decay=0.5)
    values = {f"{block}/kernel": jnp.zeros(1) for block in BLOCKS}
    after = moved(made, values, {path: jnp.ones(1) for path in values})
    found = [float(after[f"{block}/kernel"][0]) for block in BLOCKS]
    assert found == pytest.approx([-0.25, -0.5, -1.0])


def test_clipping_bounds_the_norm_of_all_values_together():
    made = optimizer.make("sgd", learning_rate=1.0, clip_norm=1.0, momentum=0.0)
    values = {"stem/kernel": jnp.zeros(1), "head/kernel": jnp.zeros(1)}
    grads = {"stem/kernel": jnp.full(1, 3.0), "head/kernel": jnp.full(1, 4.0)}
    after = moved(made, values, grads)
    assert float(after["stem/kernel"][0]) == pytest.approx(-0.6)
    assert float(after["head/kernel"][0]) == pytest.approx(-0.8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adamm"}, "no optimizer named 'adamm'; did you mean 'adam'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; it must be positive"),
        ({"ema": 1.0}, r"ema=1.0; it must be in \[0, 1\)"),
        ({"layer_decay": 0.0}, r"layer_decay=0.0; it must be in \(0, 1\]"),
        ({"accumulate_steps": 0}, "accumulate_steps=0; it must be 1 or more"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0; it must be 0 or more"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimizer.make(**arguments)
