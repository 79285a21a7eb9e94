"""Vectors for all rows and settled sums: JAX's own gradients, for less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from subtune_jax.models import row_vectors

FORMS = {
    "add": (row_vectors.add, lambda x, vector: x + vector),
    "scale": (row_vectors.scale, lambda x, vector: x * vector),
}


def drawn(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 3, 5)), dtype)
    return x, jnp.asarray(rng.normal(size=5), dtype)


def loss(function):
    return lambda x, vector: jnp.sum(jnp.sin(function(x, vector)))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_plain_form(form):
    ours, plain = map(loss, FORMS[form])
    for argument in (0, 1):
        expected = jax.grad(plain, argument)(*drawn())
        slope = jax.grad(ours, argument)(*drawn())
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_of_each_example_too(form):
    ours, plain = map(loss, FORMS[form])
    slope, expected = (
        jax.vmap(jax.grad(function, 1), (0, None))(*drawn())
        for function in (ours, plain)
    )
    assert slope.shape == (8, 5)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_add_up_over_devices(form):
    ours, plain = map(loss, FORMS[form])
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    spread = jax.shard_map(
        lambda x, vector: jax.lax.psum(ours(x, vector), "d"),
        mesh=mesh, in_specs=(P("d"), P()), out_specs=P(),
    )  # fmt: skip
    slope, expected = (jax.grad(one, 1)(*drawn()) for one in (spread, plain))
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


def test_sums_of_bfloat16_are_taken_in_float32():
    # 1.0625 has a square that lies between two such numbers.
    x = jnp.full((3000, 2), 1.0625, jnp.bfloat16)
    vector = jnp.ones(2, jnp.bfloat16)
    for name, exact in (("add", 3000 * 1.0625), ("scale", 3000 * 1.0625**2)):
        slope = jax.vjp(FORMS[name][0], x, vector)[1](x)[1]
        assert slope.dtype == jnp.bfloat16, name
        np.testing.assert_array_equal(slope, jnp.full(2, exact, jnp.bfloat16))


def test_settled_changes_no_number():
    x, _ = drawn()
    for function in (row_vectors.settled, jax.vmap(row_vectors.settled)):
        np.testing.assert_array_equal(jax.jit(function)(x), x)
        slope = jax.jit(jax.grad(lambda x, f=function: jnp.sum(jnp.sin(f(x)))))
        np.testing.assert_array_equal(slope(x), jax.jit(jnp.cos)(x))


def test_a_gradient_that_is_no_number_stays_so():
    x, _ = drawn()
    for place in ((0, 0, 0), (3, 2, 1)):
        slope = jax.vjp(row_vectors.settled, x)[1](x.at[place].set(jnp.nan))[0]
        assert np.isnan(slope[place])


def residual(depth, settle):
    """Bytes that the gradient of so many residual blocks touches."""

    def block(x, inputs):
        kernel, vector = inputs
        if settle:
            x = row_vectors.settled(x)
        wide = x - x.mean(-1, keepdims=True)
        normal = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
        return x + (normal @ kernel) * vector

    def whole(params, x):
        for inputs in params:
            x = block(x, inputs)
        return jnp.square(x).sum()

    params = [(jnp.ones((32, 32)), jnp.ones(32))] * depth
    compiled = jax.jit(jax.grad(whole)).lower(params, jnp.ones((64, 32))).compile()
    return compiled.cost_analysis()["bytes accessed"]


def test_the_gradient_of_each_residual_block_costs_the_same():
    four, eight, sixteen = (residual(depth, True) for depth in (4, 8, 16))
    assert sixteen - eight < 2.1 * (eight - four)
    four, eight, sixteen = (residual(depth, False) for depth in (4, 8, 16))
    assert sixteen - eight > 2.5 * (eight - four)  # or XLA has learnt it
