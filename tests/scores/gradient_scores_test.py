"""Promises of the scores, against loops over batches and examples in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax import scores
from subtune_jax.core import devices, trees
from subtune_jax.selection import choose, masks

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


def slow_fisher(params, batches):
    """Squared gradients of every class's log-probability, by its probability."""
    total = {path: np.zeros(w.shape) for path, w in trees.flatten(params).items()}
    for x in np.concatenate([batch["x"] for batch in batches]):
        hidden = np.tanh(x @ params["one"]["kernel"] + params["one"]["bias"])
        logits = hidden @ params["two"]["kernel"]
        p = np.exp(logits) / np.exp(logits).sum()
        for c in range(len(p)):
            error = (np.arange(len(p)) == c) - p
            below = (params["two"]["kernel"] @ error) * (1 - hidden**2)
            total["one/kernel"] += p[c] * np.outer(x, below) ** 2
            total["one/bias"] += p[c] * below**2
            total["two/kernel"] += p[c] * np.outer(hidden, error) ** 2
    return total


def logits_fn(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["one"]["kernel"] + params["one"]["bias"])
    return hidden @ params["two"]["kernel"]


def of(count, mode="shard_map"):
    return devices.choose(mode, jax.devices()[:count])


def assert_scores(score, expected, rtol=2e-5):
    assert set(trees.flatten(score)) == set(expected)
    for path, value in trees.flatten(score).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[path], rtol=rtol, atol=1e-6)


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


def test_several_reductions_take_one_pass_and_one_gradient_a_batch():
    params, traces = as_type(weights(), jnp.float32), []

    def counted(params, batch):
        traces.append(len(batch["x"]))
        return loss_fn(params, batch)

    reduces = list(scores.REDUCTIONS)
    by_reduce = scores.gradients(counted, params, iter(data()), reduces)
    assert list(by_reduce) == reduces
    for reduce, score in by_reduce.items():
        assert_scores(score, slow_score(weights(), data(), reduce))
    assert traces.count(SIZE) == 1
    traces.clear()
    scores.gradients(counted, params, data(), ["per_example_squares"])
    assert SIZE not in traces  # no batch gradient that nobody asked for


@pytest.mark.parametrize("mode, count", [("shard_map", 2), ("pmap", 4)])
def test_devices_that_share_rows_give_the_scores_of_one(mode, count):
    params, shared = as_type(weights(), jnp.float32), of(count, mode)
    reduces = list(scores.REDUCTIONS)
    by_reduce = scores.gradients(loss_fn, params, iter(data()), reduces, shared)
    for reduce, score in by_reduce.items():
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(score))
        assert_scores(score, slow_score(weights(), data(), reduce))
    on_device = jax.tree.map(jnp.asarray, data())
    moved = scores.movement(loss_fn, params, on_device, shared)
    assert_scores(moved, trees.flatten(scores.movement(loss_fn, params, data())))
    fisher = scores.fisher_expected(logits_fn, params, data(), shared)
    assert_scores(fisher, slow_fisher(weights(), data()))


def test_devices_refuse_rows_they_cannot_share():
    params, batches = as_type(weights(), jnp.float32), data()
    batches[-1] = jax.tree.map(lambda x: x[:3], batches[-1])
    with pytest.raises(ValueError, match=r"\(3, 5\); its rows must divide over 2 dev"):
        scores.gradient(loss_fn, params, batches, "sum_of_abs", of(2))
    with pytest.raises(ValueError, match=r"array \(\); its rows must divide"):
        scores.gradient(loss_fn, params, [{"x": 1.0}], "sum_of_abs", of(2))


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


def test_examples_of_bfloat16_parameters_add_up_in_float32():
    params = {"a": {"kernel": jnp.ones(2, jnp.bfloat16)}}

    def linear(params, batch):
        return jnp.mean(batch["x"].astype(jnp.bfloat16) @ params["a"]["kernel"])

    batch = {"x": np.float32([[255, 1], [1, 1], [1, 1], [1, 255]])}
    score = scores.gradient(linear, params, [batch], "per_example_squares")
    np.testing.assert_array_equal(score["a"]["kernel"], [255**2 + 3] * 2)

    def two(params, batch):  # p is half and half at these weights
        shift = batch["x"] @ (params["a"]["kernel"] - 1)
        return jnp.stack([shift, -shift], 1)

    # d log p / dw is x and -x.
    score = scores.fisher_expected(two, params, [as_type(batch, jnp.bfloat16)])
    np.testing.assert_array_equal(score["a"]["kernel"], [255**2 + 3] * 2)
    moved = scores.movement(linear, params, [{"x": batch["x"][:1]}] * 3)
    np.testing.assert_array_equal(moved["a"]["kernel"], [-765, -3])


def test_devices_add_up_bfloat16_gradients_in_float32():
    params = {"a": {"kernel": jnp.ones((), jnp.bfloat16)}}

    def linear(params, batch):
        return jnp.mean(params["a"]["kernel"] * batch["x"].astype(jnp.bfloat16))

    batch = {"x": np.float32([256, 1])}  # bfloat16 has no 128.5
    score = scores.gradient(linear, params, [batch], "abs_of_sum", of(2))
    assert float(score["a"]["kernel"]) == 128.5


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
    with pytest.raises(ValueError, match="0 batches; at least one is needed"):
        scores.fisher_expected(logits_fn, params, [])
    with pytest.raises(ValueError, match="0 reduces; there are abs_of_sum"):
        scores.gradients(loss_fn, params, data(), [])


def choose_two(score):
    return choose.top_overall(score, 2)


@pytest.mark.parametrize("overlap, every", [(1.0, 2), (0.5, 1), (1.0, 1)])
def test_until_stable_stops_where_two_choices_agree(overlap, every):
    rows = np.random.default_rng(3).normal(size=(40, 2, 12)).astype(np.float32)

    def linear(params, batch):
        return jnp.mean(batch["x"] @ params["a"]["kernel"])

    total, before, expected, used = np.zeros(12), None, [], 0
    for used, x in enumerate(rows, 1):
        total = total + x.astype(np.float64).mean(0)
        if used % every == 0:
            choice = set(np.argsort(-abs(total))[:2])
            if before is not None:
                expected.append(len(choice & before) / 2)
                if expected[-1] >= overlap:
                    break
            before = choice

    batches = ({"x": x} for x in rows)
    until = scores.Until(overlap, every, choose_two)
    params = {"a": {"kernel": jnp.zeros(12)}}
    gathered = scores.until_stable(linear, params, batches, "abs_of_sum", until)
    assert 1 < used < 40 and overlap in (0.5, expected[-1])
    assert (gathered.used_batches, list(gathered.overlaps)) == (used, expected)
    np.testing.assert_allclose(gathered.scores["a"]["kernel"], abs(total), rtol=1e-5)
    assert len(list(batches)) == 40 - used  # no batch was read in vain


def test_until_stable_uses_all_batches_of_a_choice_that_never_settles():
    params = as_type(weights(), jnp.float32)
    calls = itertools.cycle((0.9, 0.1))

    def restless(score):
        return masks.from_regex(score, ".*bias" if next(calls) > 0.5 else ".*kernel")

    until = scores.Until(0.01, 1, restless)
    gathered = scores.until_stable(loss_fn, params, data(), "sum_of_abs", until, of(2))
    assert gathered.used_batches == BATCHES
    assert gathered.overlaps == (0.0,) * (BATCHES - 1)
    assert_scores(gathered.scores, slow_score(weights(), data(), "sum_of_abs"))
    for wrong in (until._replace(overlap=1.5), until._replace(every_batches=0)):
        with pytest.raises(ValueError, match="they must be in .0, 1., and 1 or more"):
            scores.until_stable(loss_fn, params, data(), "sum_of_abs", wrong)
    with pytest.raises(ValueError, match="0 batches"):
        scores.until_stable(loss_fn, params, [], "sum_of_abs", until)


def test_snip_and_movement_are_weights_times_summed_gradients():
    params, flat = as_type(weights(), jnp.float32), trees.flatten(weights())
    grads = [slow_gradient(weights(), batch["x"], batch["y"]) for batch in data()]
    product = {path: w * sum(g[path] for g in grads) for path, w in flat.items()}
    moved = scores.movement(loss_fn, params, iter(data()))
    assert_scores(moved, {path: -value for path, value in product.items()})
    sensitive = scores.snip(loss_fn, params, iter(data()))
    assert_scores(sensitive, {path: abs(value) for path, value in product.items()})


def test_movement_is_positive_where_descent_enlarges_the_weight():
    params = {"a": {"kernel": jnp.float32([-2.0, 2.0])}}
    moved = scores.movement(lambda p, _: jnp.sum(p["a"]["kernel"]), params, [0])
    np.testing.assert_array_equal(moved["a"]["kernel"], [2, -2])


def test_fisher_expected_weighs_every_class_by_its_probability():
    params = as_type(weights(), jnp.float32)
    fisher = scores.fisher_expected(logits_fn, params, iter(data()))
    assert_scores(fisher, slow_fisher(weights(), data()))


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_is_the_magnitude_of_the_projection_on_the_best_subspace(rank):
    rng = np.random.default_rng(4)
    shapes = {"dense": (9, 6), "wide": (4, 11), "conv": (3, 2, 5, 7), "bias": (6,)}
    params = {k: rng.normal(size=shape) for k, shape in shapes.items()}
    params["tiny"] = rng.normal(size=(6, rank))  # is of that rank already
    near_by = scores.low_rank({"a": as_type(params, jnp.float32)}, rank)["a"]
    for name, w in params.items():
        matrix = w.reshape(-1, w.shape[-1])
        _, axes = np.linalg.eigh(matrix.T @ matrix)
        best = axes[:, max(axes.shape[1] - rank, 0) :]
        whole = w.ndim < 2 or rank >= min(matrix.shape)
        near = matrix if whole else matrix @ best @ best.T
        assert near_by[name].dtype == np.float32
        np.testing.assert_allclose(near_by[name], abs(near).reshape(w.shape), atol=2e-6)
        if whole:  # to the bit: nothing was factorised
            np.testing.assert_array_equal(near_by[name], abs(np.float32(w)))


def test_low_rank_refuses_what_has_no_rank():
    with pytest.raises(ValueError, match="rank=0; it must be a whole number, 1 or"):
        scores.low_rank({"a": {"kernel": np.ones((3, 3))}}, 0)
    with pytest.raises(ValueError, match="'a/kernel' has values that are not finite"):
        scores.low_rank({"a": {"kernel": np.full((3, 3), np.nan)}}, 1)


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
