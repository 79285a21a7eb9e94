import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from subtune_jax.models import convolutions, layers, shifted_products

SIZES = [(6, 6), (7, 5), (4, 9), (1, 2)]  # even, odd, mixed, below every kernel
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def draw(
    size, stride, pixels, inputs=3, outputs=3, kernel_inputs=1, seed=0, padding=None
):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *pixels, inputs))
    kernel = rng.normal(size=(size, size, kernel_inputs, outputs))
    down = [-(-n // stride) for n in pixels]
    if padding is not None:
        down = [(n + 2 * padding - size) // stride + 1 for n in pixels]
    return x, kernel, rng.normal(size=(2, *down, outputs))


def literal(x, kernel, dy, stride, meets, padding=None):
    """Output and both gradients of a convolution, one product at a time.

    Input channel `c` and kernel input `m` reach output `o` for (c, m, o) in `meets`.
    """
    size = len(kernel)
    y, dx, dkernel = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(kernel)
    before = [
        max((out - 1) * stride + size - pixels, 0) // 2
        for out, pixels in zip(dy.shape[1:3], x.shape[1:3], strict=True)
    ]
    before = before if padding is None else [padding] * 2
    for b, row, column, _ in np.ndindex(dy.shape[:3] + (1,)):
        for i, j in np.ndindex(size, size):
            h, w = row * stride + i - before[0], column * stride + j - before[1]
            if not (0 <= h < x.shape[1] and 0 <= w < x.shape[2]):
                continue
            for c, m, o in meets:
                here = dy[b, row, column, o]
                y[b, row, column, o] += x[b, h, w, c] * kernel[i, j, m, o]
                dx[b, h, w, c] += here * kernel[i, j, m, o]
                dkernel[i, j, m, o] += here * x[b, h, w, c]
    return y, dx, dkernel


def with_gradients(function, *case, dtype=jnp.float32):
    @jax.jit
    def run(x, kernel, dy):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(dy)

    return run(*(jnp.asarray(array, dtype) for array in case))


@pytest.mark.parametrize("pixels", SIZES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_is_its_definition_in_value_and_both_gradients(size, stride, pixels):
    case = draw(size, stride, pixels)
    expected = literal(*case, stride, [(c, 0, c) for c in range(3)])
    results = with_gradients(lambda x, k: convolutions.depthwise(x, k, stride), *case)
    for value, truth in zip(results, expected, strict=True):
        np.testing.assert_allclose(value, truth, **EXACT)


@pytest.mark.parametrize("pixels", SIZES[:3:2], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_thin_full_convolution_is_its_definition(stride, pixels):
    case = draw(3, stride, pixels, outputs=4, kernel_inputs=3)
    meets = [(c, c, o) for c in range(3) for o in range(4)]
    expected = literal(*case, stride, meets)
    results = with_gradients(lambda x, k: convolutions.full(x, k, stride), *case)
    for value, truth in zip(results, expected, strict=True):
        np.testing.assert_allclose(value, truth, **EXACT)


@pytest.mark.parametrize("pixels", [(5, 4), (6, 5)], ids=str)  # product, native
def test_wide_full_convolution_is_its_definition(pixels):
    case = draw(3, 2, pixels, inputs=4, outputs=2, kernel_inputs=4)
    meets = [(c, c, o) for c in range(4) for o in range(2)]
    expected = literal(*case, 2, meets)
    results = with_gradients(lambda x, k: convolutions.full(x, k, 2), *case)
    for value, truth in zip(results, expected, strict=True):
        np.testing.assert_allclose(value, truth, **EXACT)


@pytest.mark.parametrize("pixels", [(6, 6), (7, 5), (1, 2), (10, 9)], ids=str)
@pytest.mark.parametrize(
    "size, stride, inputs",  # thin, where it is 'SAME', and wide
    [(1, 2, 4), (3, 1, 3), (3, 1, 4), (3, 2, 3), (3, 2, 4), (5, 2, 4)],
)
def test_padding_is_on_both_sides(size, stride, inputs, pixels):
    padding = size // 2
    case = draw(size, stride, pixels, inputs, 2, inputs, padding=padding)
    meets = [(c, c, o) for c in range(inputs) for o in range(2)]
    expected = literal(*case, stride, meets, padding)
    results = with_gradients(
        lambda x, k: convolutions.full(x, k, stride, padding), *case
    )
    for value, truth in zip(results, expected, strict=True):
        np.testing.assert_allclose(value, truth, **EXACT)


@pytest.mark.parametrize("size, pixels, native", [(3, 4, 0), (3, 5, 1), (1, 6, 0)])
def test_one_pixel_and_maps_below_the_kernel_are_matrix_products(size, pixels, native):
    x, kernel = jnp.zeros((1, pixels, pixels, 4)), jnp.zeros((size, size, 4, 2))
    form = jax.make_jaxpr(lambda x, k: convolutions.full(x, k, 2, size // 2))
    text = str(form(x, kernel))
    assert text.count("conv_general_dilated[") == native
    assert text.count("dot_general[") == 1 - native


def test_pointwise_is_a_full_convolution():
    case = draw(1, 1, (3, 4), inputs=5, outputs=6, kernel_inputs=5)
    meets = [(c, c, o) for c in range(5) for o in range(6)]
    expected = literal(*case, 1, meets)
    for value, truth in zip(
        with_gradients(convolutions.pointwise, *case), expected, strict=True
    ):
        np.testing.assert_allclose(value, truth, **EXACT)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_the_forms_for_cpu_and_for_accelerators_agree(size, stride):
    x, kernel, dy = map(jnp.float32, draw(size, stride, (7, 6)))
    for mine, native, rest in [
        (shifted_products.depthwise, convolutions._native, ()),
        (shifted_products.depthwise_dx, convolutions._native_dx, (dy,)),
        (shifted_products.depthwise_dkernel, convolutions._native_dkernel, (dy,)),
    ]:
        here, there = (
            jax.jit(f, static_argnames="stride")(x, kernel, *rest, stride=stride)
            for f in (mine, native)
        )
        np.testing.assert_allclose(here, there, **EXACT)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_native_form(platform):
    def loss(x, kernel):
        return convolutions.depthwise(x, kernel, 2).sum()

    shapes = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 2))
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    exported = jax.export.export(step, platforms=[platform])(*shapes)
    assert exported.mlir_module().count("stablehlo.convolution") == 3
    exported = jax.export.export(step, platforms=["cpu"])(*shapes)
    assert "stablehlo.convolution" not in exported.mlir_module()


def test_in_bfloat16_sums_are_float32():
    case = draw(5, 1, (6, 6), inputs=8, outputs=8)
    wide = [np.asarray(jnp.bfloat16(array), np.float64) for array in case]
    expected = literal(*wide, 1, [(c, 0, c) for c in range(8)])
    results = with_gradients(convolutions.depthwise, *case, dtype=jnp.bfloat16)
    for value, truth in zip(results, expected, strict=True):
        assert value.dtype == jnp.bfloat16
        # Rounded once, at the end: half a unit in the last of 8 bits.
        np.testing.assert_allclose(
            np.asarray(value, np.float64), truth, rtol=2**-8, atol=1e-5
        )


def flops(function, *arrays):
    return jax.jit(function).lower(*arrays).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_each_gradient_costs_its_own_products_and_no_more(size, stride):
    x, kernel, dy = map(jnp.float32, draw(size, stride, (8, 8)))
    need = 2 * size * size * dy.size

    def gradient(x, kernel, dy, argument):
        _, pull = jax.vjp(lambda x, k: convolutions.depthwise(x, k, stride), x, kernel)
        return pull(dy)[argument]

    for argument in (0, 1):
        cost = flops(functools.partial(gradient, argument=argument), x, kernel, dy)
        assert 0.7 * need < cost < 1.02 * need


@pytest.mark.parametrize("layer", ["full", "pointwise", "depthwise"])
def test_devices_get_a_share_of_the_batch_and_the_whole_gradient(layer):
    function = getattr(convolutions, layer)
    size, inputs = {"full": (3, 2), "pointwise": (1, 2), "depthwise": (3, 1)}[layer]
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(16, 4, 4, 2)))
    kernel = jnp.float32(rng.normal(size=(size, size, inputs, 2)))

    def loss(kernel, x):
        return jnp.sum(jnp.sin(function(x, kernel)))

    expected = jax.grad(loss)(kernel, x)
    mesh = jax.sharding.Mesh(jax.devices(), "batch")

    def step(kernel, x):
        return jax.grad(lambda k: jax.lax.psum(loss(k, x), "batch"))(kernel)

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P())
    np.testing.assert_allclose(jax.jit(mapped)(kernel, x), expected, **EXACT)

    def step_pmap(kernel, x):
        return jax.lax.psum(jax.grad(loss)(kernel, x), "batch")

    shared = jax.pmap(step_pmap, "batch", in_axes=(None, 0))
    np.testing.assert_allclose(
        shared(kernel, x.reshape(8, 2, 4, 4, 2))[0], expected, **EXACT
    )


def test_a_folded_norm_is_the_convolution_and_then_the_norm():
    rng = np.random.default_rng(0)
    conv = convolutions.DepthwiseConv(4, size=3, rngs=nnx.Rngs(0))
    norm = layers.BatchNorm(4, epsilon=1e-3, momentum=0.9)
    norm.scale[...] = jnp.float32([0.0, -1.0, 0.5, 2.0])  # a dead channel too
    norm.bias[...] = jnp.float32(rng.normal(size=4))
    norm.mean[...] = jnp.float32(rng.normal(size=4))
    norm.var[...] = jnp.float32(rng.uniform(0.1, 2, size=4))
    x = jnp.float32(rng.normal(size=(2, 5, 5, 4)))
    graph, params, stats = nnx.split((conv, norm), nnx.Param, nnx.BatchStat)

    def loss(params, x, fold):
        conv, norm = nnx.merge(graph, params, stats)
        mode = layers.Mode()
        y = (
            convolutions.normalised(conv, norm, x, mode)
            if fold
            else norm(conv(x), mode)
        )
        return jnp.sum(jnp.sin(y)), y

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)
    (slope, y), (expected, truth) = (
        gradient(params, x, fold) for fold in (True, False)
    )
    np.testing.assert_allclose(y, truth, **EXACT)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        slope,
        expected,
    )


def test_a_norm_in_training_sees_the_batch():
    conv = convolutions.Conv(3, 4, size=3, rngs=nnx.Rngs(0))
    norm = layers.BatchNorm(4, epsilon=1e-3, momentum=0.9)
    x = jnp.float32(np.random.default_rng(0).normal(size=(4, 5, 5, 3)))
    y = convolutions.normalised(conv, norm, x, layers.Mode(training=True))
    np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(4), atol=1e-5)
    assert np.all(norm.mean[...] != 0)
