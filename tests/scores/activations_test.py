"""Promises of the activation score, against loops over rows and positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax import scores
from subtune_jax.backbones import mlp
from subtune_jax.core import devices, trees

RNG = np.random.default_rng(0)
DENSE = {"one": {"kernel": RNG.normal(size=(5, 4)), "bias": RNG.normal(size=4)}}
DENSE |= {"two": {"kernel": RNG.normal(size=(3, 4))}}  # used transposed
BATCHES = [{"x": RNG.normal(size=(6, 5))}, {"x": RNG.normal(size=(4, 5))}]


def as_type(tree, kind):
    return jax.tree.map(lambda x: jnp.asarray(x, kind), tree)


def network(params, batch):
    """The loss of two layers, the first of them compiled by itself."""
    one, two = params["one"], params["two"]
    first = jax.jit(lambda x, w: jnp.einsum("bi,io->bo", x, w.astype(jnp.float32)))
    hidden = jax.nn.relu(first(batch["x"], one["kernel"]) + one["bias"])
    return jnp.mean((hidden @ two["kernel"].T) ** 2)


def slow_dense(norm):
    x = np.concatenate([batch["x"] for batch in BATCHES])
    hidden = np.maximum(x @ DENSE["one"]["kernel"] + DENSE["one"]["bias"], 0)

    def size(column):
        values = [abs(value) for value in column]
        l2 = sum(value**2 for value in values) ** 0.5
        return l2 if norm == "l2" else sum(values) / len(values)

    inputs = np.array([size(column) for column in x.T])
    second = np.array([size(column) for column in hidden.T])
    return {
        "one/kernel": abs(DENSE["one"]["kernel"]) * inputs[:, None],
        "one/bias": np.full(4, np.nan),
        "two/kernel": abs(DENSE["two"]["kernel"]) * second[None, :],
    }


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("norm", ["mean", "l2"])
def test_activation_is_the_weight_times_the_size_of_its_inputs(norm, count):
    where = count and devices.choose("shard_map", jax.devices()[:count])
    params = as_type(DENSE, jnp.float32)
    wrapped = jax.checkpoint(network)
    sizes = scores.activation(wrapped, params, iter(BATCHES), norm, where)
    for path, expected in slow_dense(norm).items():
        score = trees.flatten(sizes)[path]
        assert score.dtype == jnp.float32
        np.testing.assert_allclose(score, expected, rtol=2e-5)


def test_a_convolution_counts_the_positions_of_each_tap_without_padding():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(3, 2, 3, 4))
    strides, low = (2, 1), (1, 0)
    pads = ((1, 1), (0, 1))

    def convolve(params, batch):
        return jax.lax.conv_general_dilated(
            batch["x"],
            params["kernel"].astype(batch["x"].dtype),
            strides,
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    expected = np.zeros(kernel.shape)
    for i, j, c in np.ndindex(3, 2, 3):
        seen = [
            abs(x[b, row, column, c])
            for b in range(2)
            for row in range(i - low[0], i - low[0] + 2 * 3, strides[0])
            for column in range(j - low[1], j - low[1] + 6, strides[1])
            if 0 <= row < 5 and 0 <= column < 6
        ]
        expected[i, j, c] = abs(kernel[i, j, c]) * np.mean(seen)
    params = as_type({"kernel": kernel}, jnp.float32)
    sizes = scores.activation(convolve, params, [as_type({"x": x}, jnp.float32)])
    np.testing.assert_allclose(sizes["kernel"], expected, rtol=2e-5)


def test_inputs_of_bfloat16_add_up_in_float32():
    params = {"a": {"kernel": jnp.ones((1, 2), jnp.bfloat16)}}
    batch = {"x": jnp.asarray([[255], *[[1]] * 7], jnp.bfloat16)}

    def product(params, batch):
        return batch["x"] @ params["a"]["kernel"]

    mean = scores.activation(product, params, [batch] * 3)["a"]["kernel"]
    np.testing.assert_array_equal(mean, np.float32([[262 / 8] * 2]))
    l2 = scores.activation(product, params, [batch] * 3, "l2")["a"]["kernel"]
    np.testing.assert_allclose(l2, [[(3 * (255**2 + 7)) ** 0.5] * 2], rtol=3e-7)


def test_layers_of_an_nnx_network_are_found_by_their_products():
    network = mlp.make(**mlp.TINY)
    variables = network.init(jax.random.key(0), 3)
    x = np.random.default_rng(2).normal(size=(4, *network.input_shape))

    def logits(params, batch):
        return network.apply(params, variables.stats, batch["x"])[0]

    sizes = scores.activation(logits, variables.params, [{"x": np.float32(x)}])
    flat, weights = trees.flatten(sizes), trees.flatten(variables.params)
    first = next(path for path in flat if path.startswith("hidden01"))
    sizes = abs(x).reshape(4, -1).mean(0)
    expected = abs(np.asarray(weights[first])) * sizes[:, None]
    np.testing.assert_allclose(flat[first], expected, rtol=2e-5)
    for path, score in flat.items():
        assert np.isnan(score).all() != path.endswith("kernel")


def test_activation_refuses_what_it_cannot_follow():
    def looped(params, batch):
        return jax.lax.scan(lambda x, w: (x @ w, None), batch["x"], params["stack"])

    params = {"stack": jnp.ones((2, 5, 5))}
    with pytest.raises(ValueError, match="'stack' is used in a scan; only inputs out"):
        scores.activation(looped, params, BATCHES)
    with pytest.raises(ValueError, match="norm='max' is not known; did you"):
        scores.activation(network, as_type(DENSE, jnp.float32), BATCHES, "max")
    with pytest.raises(ValueError, match="0 batches"):
        scores.activation(network, as_type(DENSE, jnp.float32), [])
