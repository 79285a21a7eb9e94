"""Promises of the scores, against loops over batches and examples in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax import choose, scores, trees

BATCHES, SIZE = 3, 4


def data():
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(size=(SIZE, 5)), "y": rng.normal(size=(SIZE, 2))}
        for _ in range(BATCHES)
    ]


def weights():
    rng = np.random.default_rng(1)
    shapes = {"one/kernel": (5, 3), "one/bias": (3,), "two/kernel": (3, 2)}
    return trees.nest({path: rng.normal(size=shape) for path, shape in shapes.items()})


def loss_fn(params, batch):
    """Half the mean squared error of a small network."""
    assert batch["x"].ndim == 2  # a batch of one is still a batch
    hidden = jnp.tanh(batch["x"] @ params["one"]["kernel"] + params["one"]["bias"])
    error = hidden @ params["two"]["kernel"] - batch["y"]
    return 0.5 * jnp.mean(jnp.sum(error**2, -1))


def slow_gradient(params, x, y):
    """Back-propagation of `loss_fn` by hand, in float64."""
    hidden = np.tanh(x @ params["one"]["kernel"] + params["one"]["bias"])
    error = (hidden @ params["two"]["kernel"] - y) / len(x)
    below = (error @ params["two"]["kernel"].T) * (1 - hidden**2)
    return {
        "one/kernel": x.T @ below,
        "one/bias": below.sum(0),
        "two/kernel": hidden.T @ error,
    }


def slow_score(params, batches, reduce):
    if reduce == "per_example_squares":
        batches = [
            {"x": batch["x"][i : i + 1], "y": batch["y"][i : i + 1]}
            for batch in batches
            for i in range(len(batch["x"]))
        ]
    grads = [slow_gradient(params, batch["x"], batch["y"]) for batch in batches]
    part = {"abs_of_sum": lambda g: g, "sum_of_abs": np.abs}.get(reduce, np.square)
    total = {path: sum(part(g[path]) for g in grads) for path in grads[0]}
    return {path: np.abs(value) for path, value in total.items()}


def as_type(tree, kind):
    return jax.tree.map(lambda x: jnp.asarray(x, kind), tree)


@pytest.mark.parametrize("reduce", scores.REDUCTIONS)
def test_gradient_is_the_sum_over_batches_or_examples(reduce):
    params = as_type(weights(), jnp.float32)
    before = jax.tree.map(np.array, params)
    score = scores.gradient(loss_fn, params, iter(data()), reduce)
    assert jax.tree.structure(score) == jax.tree.structure(params)
    expected = slow_score(weights(), data(), reduce)
    for path, value in trees.flatten(score).items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[path], rtol=2e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, before, params)  # nothing was donated


def test_batches_of_different_sizes_are_added_up():
    params, batches = as_type(weights(), jnp.float32), data()
    batches[-1] = jax.tree.map(lambda x: x[:3], batches[-1])
    score = scores.gradient(loss_fn, params, batches, "per_example_squares")
    expected = slow_score(weights(), batches, "per_example_squares")
    for path, value in trees.flatten(score).items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-5)


@pytest.mark.parametrize("reduce", scores.REDUCTIONS)
def test_scores_of_bfloat16_parameters_add_up_in_float32(reduce):
    params = {"a": {"kernel": jnp.ones((), jnp.bfloat16)}}

    def linear(params, batch):
        return jnp.mean(params["a"]["kernel"] * batch["x"].astype(jnp.bfloat16))

    # In bfloat16, 256 + 1 is 256 and 255 has no square.
    batches = [{"x": np.full(1, value, np.float32)} for value in (255, 1, 1, 1)]
    score = scores.gradient(linear, params, batches, reduce)["a"]["kernel"]
    squares = reduce in ("sum_of_squares", "per_example_squares")
    assert score.dtype == jnp.float32
    assert float(score) == (255**2 + 3 if squares else 258)


def test_the_reductions_rank_differently():
    # Per-example gradients of three weights, two batches of two examples.
    batches = [
        {"x": np.float32([[1, 3, 4], [1, 3, -4]])},
        {"x": np.float32([[1, -3, 4], [1, -2, -4]])},
    ]

    def linear(params, batch):
        return jnp.mean(batch["x"] @ params["a"]["kernel"])

    params = {"a": {"kernel": jnp.zeros(3)}}
    best = {
        reduce: int(
            np.argmax(scores.gradient(linear, params, batches, reduce)["a"]["kernel"])
        )
        for reduce in scores.REDUCTIONS
    }
    assert best == {
        "abs_of_sum": 0,
        "sum_of_abs": 1,
        "sum_of_squares": 1,
        "per_example_squares": 2,
    }


def test_gradient_refuses_what_it_cannot_do():
    params = as_type(weights(), jnp.float32)
    with pytest.raises(
        ValueError, match="no reduce named 'sum_of_square'; did you mean"
    ):
        scores.gradient(loss_fn, params, data(), "sum_of_square")
    with pytest.raises(ValueError, match="0 batches; at least one is needed"):
        scores.gradient(loss_fn, params, iter([]), "abs_of_sum")


def test_magnitude_is_the_absolute_value_in_float32():
    params = {"a": {"kernel": jnp.array([[-2.0, 0.5], [-0.0, 1.0]], jnp.bfloat16)}}
    kernel = scores.magnitude(params)["a"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, [[2, 0.5], [0, 1]])


def test_random_scores_depend_on_seed_and_path_alone():
    params = {"a": {"kernel": np.zeros((30, 40))}, "b": {"kernel": np.zeros((30, 40))}}
    draw = scores.random(params, 0)
    alone = scores.random({"b": params["b"]}, 0)
    np.testing.assert_array_equal(draw["b"]["kernel"], alone["b"]["kernel"])
    flat = scores.random({"b/kernel": params["b"]["kernel"]}, 0)
    np.testing.assert_array_equal(draw["b"]["kernel"], flat["b/kernel"])
    again, other = scores.random(params, 0), scores.random(params, 1)
    np.testing.assert_array_equal(draw["a"]["kernel"], again["a"]["kernel"])
    assert (draw["a"]["kernel"] != other["a"]["kernel"]).mean() > 0.99
    assert (draw["a"]["kernel"] != draw["b"]["kernel"]).mean() > 0.99


def test_random_choices_are_uniform():
    params = {"a": {"kernel": np.zeros((8, 3))}}
    times = sum(
        choose.top_per_neuron(scores.random(params, seed), 2)["a"]["kernel"]
        for seed in range(2000)
    )
    # Binomial(2000, 1/4): mean 500, deviation 19.4; 24 cells, five deviations.
    assert np.abs(times - 500).max() < 97
