"""Layers with a gradient of their own, against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from subtune_jax.models import attention, layers


def dense():
    graph, state = nnx.split(layers.Dense(5, 3, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    rng = np.random.default_rng(0)
    params["bias"] = jnp.asarray(rng.normal(size=3), jnp.float32)
    x = jnp.asarray(rng.normal(size=(8, 4, 5)), jnp.float32)

    def ours(params, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, params)(x)))

    def plain(params, x):
        return jnp.sum(jnp.sin(x @ params["kernel"] + params["bias"]))

    return params, x, ours, plain


def close(one, two):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), one, two
    )


def test_the_gradient_of_a_dense_layer_is_the_products():
    params, x, ours, plain = dense()
    for argument in (0, 1):
        expected = jax.grad(plain, argument)(params, x)
        close(jax.grad(ours, argument)(params, x), expected)


def test_gradients_of_a_dense_layer_add_up_over_devices():
    params, x, ours, plain = dense()
    expected = jax.grad(plain)(params, x)
    mesh = Mesh(np.array(jax.devices()), ("data",))

    def step(params, x):
        return jax.grad(lambda p: jax.lax.psum(ours(p, x), "data"))(params)

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    close(jax.jit(mapped)(params, x), expected)

    def sums(params, x):
        return jax.lax.psum(jax.grad(ours)(params, x), "data")

    shared = jax.pmap(sums, "data", in_axes=(None, 0))(params, x[:, None])
    close(jax.tree.map(lambda leaf: leaf[0], shared), expected)


def test_the_gradient_of_attention_is_that_of_its_formula():
    graph, state = nnx.split(attention.Attention(6, 2, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)
    real = jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])

    def ours(params, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, params)(x, real)))

    def plain(params, x):
        def dense(name, x):
            return x @ params[name]["kernel"] + params[name]["bias"]

        query, keys, values = (
            dense(name, x).reshape(3, 4, 2, 3) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("blhd,bmhd->bhlm", query, keys) / 3**0.5
        scores += jnp.where(real, 0.0, -jnp.inf)[:, None, None]
        read = jnp.einsum("bhlm,bmhd->blhd", jax.nn.softmax(scores), values)
        return jnp.sum(jnp.sin(dense("out", read.reshape(3, 4, 6))))

    for argument in (0, 1):
        expected = jax.grad(plain, argument)(params, x)
        close(jax.jit(jax.grad(ours, argument))(params, x), expected)
