"""Auto-RGN against its rule written out, step by step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subtune_jax.optim import auto_rgn, optimizer

PATHS = ("block01/conv/kernel", "block01/norm/scale", "head/kernel")


def gradients(steps):
    rng = np.random.default_rng(0)
    return [
        {path: rng.normal(size=(3, 2)).astype(np.float32) for path in PATHS}
        for _ in range(steps)
    ]


def literal(params, grads, rate, period):
    """Adam from its definition, fresh every period, each array at its own rate."""
    params = {path: np.asarray(leaf, np.float64) for path, leaf in params.items()}
    for step, grad in enumerate(grads):
        if step % period == 0:
            mean = {path: np.zeros((3, 2)) for path in PATHS}
            square = {path: np.zeros((3, 2)) for path in PATHS}
            ratio = {
                path: np.linalg.norm(grad[path]) / np.linalg.norm(params[path])
                for path in PATHS
            }
            ratio["block01/norm/scale"] = 0.0
            largest = max(ratio.values())
        count = step % period + 1
        for path in PATHS:
            g = np.asarray(grad[path], np.float64)
            mean[path] = 0.9 * mean[path] + 0.1 * g
            square[path] = 0.999 * square[path] + 0.001 * g**2
            move = (mean[path] / (1 - 0.9**count)) / (
                np.sqrt(square[path] / (1 - 0.999**count)) + 1e-8
            )
            params[path] = params[path] - rate * ratio[path] / largest * move
    return params


@pytest.mark.parametrize("period", [1, 3, 100])
def test_arrays_learn_at_their_relative_gradient_norms(period):
    rng = np.random.default_rng(1)
    start = {path: rng.normal(size=(3, 2)).astype(np.float32) for path in PATHS}
    tx = optax.chain(
        auto_rgn.auto_rgn(optax.scale_by_adam(), period), optax.scale(-0.1)
    )
    params = {path: jnp.asarray(leaf) for path, leaf in start.items()}
    state = tx.init(params)
    for grad in gradients(7):
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    expected = literal(start, gradients(7), 0.1, period)
    for path in PATHS:
        np.testing.assert_allclose(params[path], expected[path], rtol=1e-4, atol=1e-5)
    skipped = "block01/norm/scale"
    np.testing.assert_array_equal(params[skipped], start[skipped])


def test_the_schedule_goes_on_while_the_moments_start_anew():
    chosen = optimizer.make("adam", learning_rate=0.1, rgn_steps=2)
    tx = chosen.transform(6, ("block01", "head"))
    params = {path: jnp.ones((3, 2)) for path in PATHS}
    state, grad = tx.init(params), {path: jnp.ones((3, 2)) for path in PATHS}
    moved = []
    for _ in range(6):
        updates, state = tx.update(grad, state, params)
        moved.append(float(updates["head/kernel"][0, 0]))
    # Equal gradients make every step of a fresh Adam one times the rate.
    rates = [float(chosen.schedule(6)(step)) for step in range(6)]
    np.testing.assert_allclose(moved, [-rate for rate in rates], rtol=1e-4)


def test_a_period_below_one_is_refused():
    with pytest.raises(ValueError, match="period=0; it must be 1 or more"):
        auto_rgn.auto_rgn(optax.scale_by_adam(), 0)
    with pytest.raises(ValueError, match="rgn_steps=-1; it must be 0 or more"):
        optimizer.make(rgn_steps=-1)
