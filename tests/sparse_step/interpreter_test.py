"""Sparse gradients: those of the whole tree at the selected places, on any model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import noise
import numpy as np
import pytest
from flax import nnx

from subtune_jax.core import registry, trees
from subtune_jax.sparse_step import interpreter

NETWORKS = registry.plugins("backbones")


def anywhere(leaf, seed=0, share=0.1):
    """Positions `[k]` of random elements."""
    count = max(1, int(share * leaf.size))
    drawn = np.random.default_rng(seed).choice(leaf.size, count, replace=False)
    return np.sort(drawn).astype(np.int32)


def each_neuron(leaf, seed=0, k=1):
    """Positions `[O, K]` of `k` random inputs of each neuron."""
    outputs, rng = leaf.shape[-1], np.random.default_rng(seed)
    inputs = leaf.size // outputs
    each = [np.sort(rng.permutation(inputs)[:k]) for _ in range(outputs)]
    return np.stack([outputs * i + o for o, i in enumerate(each)]).astype(np.int32)


def whole(leaf, axis, seed=0):
    """Positions of a third of the neurons (axis 1) or of the inputs (axis 0)."""
    flags = np.zeros((leaf.size // leaf.shape[-1], leaf.shape[-1]), bool)
    count = flags.shape[axis]
    drawn = np.random.default_rng(seed).permutation(count)[: max(1, count // 3)]
    flags.swapaxes(0, axis)[drawn] = True
    where = np.flatnonzero(flags).astype(np.int32)
    return where if flags.all() else trees.arrange(where, leaf.shape)


columns, rows = functools.partial(whole, axis=1), functools.partial(whole, axis=0)
FORMS = {"any": anywhere, "neuron": each_neuron, "columns": columns, "rows": rows}


def compare(loss, params, positions, whole=()):
    """Asserts that `interpreter.gradient` is `jax.grad` gathered; returns `formed`."""
    flat = trees.flatten(params)
    moving = {path: flat[path] for path in whole}
    partial = {path: flat[path] for path in positions}
    rest = {p: x for p, x in flat.items() if p not in moving and p not in partial}

    def split(moving, partial, rest):
        return loss(trees.nest({**rest, **moving, **partial})), ()

    formed = []

    @jax.jit
    def sparsely(moving, partial, positions, rest):
        found = interpreter.gradient(split, moving, partial, positions, rest)
        formed.extend(found.formed)
        return found.output[0], found.whole, found.few

    value, dense, few = sparsely(moving, partial, positions, rest)
    expected, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    slopes = trees.flatten(grads)
    size = max(float(jnp.abs(slope).max()) for slope in slopes.values())
    for path, where in positions.items():
        want = slopes[path].reshape(-1)[where]
        assert few[path].shape == where.shape and few[path].dtype == jnp.float32
        np.testing.assert_allclose(few[path], want, rtol=2e-4, atol=1e-6 * size)
    for path in whole:
        want = slopes[path]
        np.testing.assert_allclose(dense[path], want, rtol=2e-4, atol=1e-6 * size)
    return formed


@functools.cache
def tiny(name):
    backbone = noise.network(name)
    variables = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3)
    x = noise.entering(backbone, 4)

    def loss(params):
        return jnp.sum(jnp.square(backbone.apply(params, variables.stats, x)[0]))

    return loss, variables.params


def each():
    """All forms on two networks; on the others, which compile long, two and more."""
    for name in NETWORKS:
        for form, positions in FORMS.items():
            quick = name in ("mlp", "vit") or form in ("any", "neuron")
            marks = [] if quick else [pytest.mark.slow]
            yield pytest.param(name, positions, id=f"{name}-{form}", marks=marks)


@pytest.mark.parametrize("name, form", list(each()))
def test_gradients_are_those_of_the_whole_tree_on_every_network(name, form):
    loss, params = tiny(name)
    flat = trees.flatten(params)
    kernels = {path: form(leaf) for path, leaf in flat.items() if leaf.ndim > 1}
    compare(loss, params, kernels, [path for path in flat if path.endswith("bias")])


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_that_are_trained_beside_kernels_have_their_gradients_too(name):
    """A norm that scales a kernel needs the kernel's whole gradient: it is formed."""
    loss, params = tiny(name)
    flat = trees.flatten(params)
    kernels = {p: anywhere(leaf) for p, leaf in flat.items() if p.endswith("kernel")}
    compare(loss, params, kernels, [path for path in flat if path.endswith("scale")])


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_may_be_selected_in_part(name):
    loss, params = tiny(name)
    vectors = {p: anywhere(x) for p, x in trees.flatten(params).items() if x.ndim == 1}
    compare(loss, params, vectors)


class Linen(nn.Module):
    """Every kind of layer that has a site, and one tied table."""

    @nn.compact
    def __call__(self, ids, image):
        table = nn.Embed(11, 12)
        x = table(ids)
        x = x + nn.MultiHeadDotProductAttention(3, deterministic=True)(x)
        x = nn.Dense(12)(nn.LayerNorm()(x))
        y = nn.relu(nn.Conv(8, (3, 3), strides=2)(image))
        y = nn.Conv(12, (1, 1), use_bias=False)(y).mean((1, 2))
        return table.attend(jnp.tanh(x + y[:, None]))


def inputs():
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 11, (4, 5)), jnp.int32)
    return ids, jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_layer_of_linen_has_a_site(form):
    model = Linen()
    params = model.init(jax.random.key(0), *inputs())["params"]
    flat = trees.flatten(params)
    weights = {path: form(leaf) for path, leaf in flat.items() if leaf.ndim > 1}
    biases = [path for path in flat if path.endswith("bias") and flat[path].ndim == 1]
    loss = lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, *inputs())))  # noqa: E731
    weights = {p: w for p, w in weights.items() if not p.endswith("bias")}
    assert compare(loss, params, weights, biases) == []
    assert len(weights) == 8


def test_neurons_over_two_axes_are_sampled():
    """Attention of Linen: `[D, heads, width]`, one input of each of heads x width."""
    shape = (6, 2, 3)
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, bool)
    for head in range(2):
        for unit in range(3):
            mask[rng.integers(6), head, unit] = True
    where = trees.arrange(np.flatnonzero(mask).astype(np.int32), shape)
    assert where.shape == (6, 1)
    params = {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(4, 5, 6)), jnp.float32)
    loss = lambda p: jnp.sum(jnp.sin(jnp.einsum("bld,dhw->blhw", x, p["kernel"])))  # noqa: E731
    assert compare(loss, params, {"kernel": where}) == []


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.table = nnx.Embed(11, 12, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)
        self.dense = nnx.Linear(12, 8, rngs=rngs)
        self.conv = nnx.Conv(3, 12, (3, 3), rngs=rngs)

    def __call__(self, ids, image):
        x = self.table(ids) + self.conv(image).mean((1, 2))[:, None]
        return self.dense(x + self.attention(x))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_layer_of_nnx_has_a_site(form):
    graph, state, rest = nnx.split(Plain(nnx.Rngs(0)), nnx.Param, ...)
    params = nnx.to_pure_dict(state)
    flat = trees.flatten(params)
    weights = {p: form(x) for p, x in flat.items() if p.split("/")[-1] != "bias"}

    def loss(params):
        return jnp.sum(jnp.sin(nnx.merge(graph, params, rest)(*inputs())))

    assert compare(loss, params, weights) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_kernels_times_what_is_frozen_have_its_factor_in_their_gradient(form):
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)
    for shape in ((5,), (7, 1), (7, 5)):
        factor = jnp.asarray(rng.uniform(2, 9, shape), jnp.float32)
        loss = lambda p, f=factor: jnp.sum(jnp.sin(x @ (p["kernel"] * f)))  # noqa: E731
        assert compare(loss, params, {"kernel": form(params["kernel"])}) == []


def test_torch_like_kernels_are_transposed_and_found():
    rng = np.random.default_rng(0)
    params = {"weight": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    loss = lambda p: jnp.sum(jnp.sin(x @ p["weight"].T))  # noqa: E731
    for form in FORMS.values():
        assert compare(loss, params, {"weight": form(params["weight"])}) == []


def test_where_there_is_no_site_the_gradient_is_formed_and_the_log_says_so(caplog):
    rng = np.random.default_rng(0)
    params = {"layers": jnp.asarray(rng.normal(size=(3, 4, 4)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)

    def loss(params):  # a loop over stacked layers
        body = lambda x, kernel: (jnp.tanh(x @ kernel), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(body, x, params["layers"])[0])

    with caplog.at_level("INFO", "subtune_jax"):
        assert compare(loss, params, {"layers": anywhere(params["layers"])})
    assert "1 gradients are formed whole, then gathered: layers" in caplog.text


def test_rematerialised_layers_are_right():
    loss, params = tiny("vit")
    flat = trees.flatten(params)
    kernels = {p: each_neuron(x) for p, x in flat.items() if p.endswith("kernel")}
    assert compare(jax.checkpoint(loss), params, kernels) == []


def test_ids_that_are_not_in_the_table_have_no_gradient():
    rng = np.random.default_rng(0)
    params = {"table": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)}
    ids = jnp.asarray([[0, 3, 3], [4, -1, 7]])
    for mode in ("clip", "fill", "wrap"):
        read = functools.partial(jnp.take, axis=0, mode=mode, fill_value=0.0)
        loss = lambda p, read=read: jnp.sum(jnp.sin(read(p["table"], ids)))  # noqa: E731
        compare(loss, params, {"table": anywhere(params["table"], share=0.8)})


def test_bfloat16_products_have_float32_gradients():
    """A sum of 4,096 ones is 4,096, which bfloat16 sums would not reach."""
    kernel = jnp.ones((4, 3), jnp.bfloat16)
    x = jnp.ones((4096, 4), jnp.bfloat16)

    def loss(whole, partial):
        return jnp.sum((x @ partial["kernel"]).astype(jnp.float32)), ()

    for where in (np.arange(3, dtype=np.int32)[:, None], np.arange(5, dtype=np.int32)):
        found = interpreter.gradient(loss, {}, {"kernel": kernel}, {"kernel": where})
        np.testing.assert_array_equal(found.few["kernel"], np.full(where.shape, 4096.0))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_mixed_types_and_precisions_are_kept(form):
    rng = np.random.default_rng(0)
    draw = rng.normal(size=(9, 8)).astype(jnp.bfloat16)
    params = {"kernel": jnp.asarray(rng.normal(size=(8, 6)), jnp.bfloat16)}
    wide = {"precision": "highest", "preferred_element_type": jnp.float32}
    loss = lambda p: jnp.sum(jnp.sin(jnp.matmul(draw, p["kernel"], **wide)))  # noqa: E731
    where = form(params["kernel"])
    found = interpreter.gradient(
        lambda w, p: (loss(p), ()), {}, params, {"kernel": where}
    )
    exact = draw.astype(np.float64).T @ np.cos(
        draw.astype(np.float64) @ np.asarray(params["kernel"], np.float64)
    )
    few = exact.reshape(-1)[where]
    np.testing.assert_allclose(found.few["kernel"], few, rtol=2e-2, atol=2e-2)
    assert found.output[0].dtype == jnp.float32


def test_weights_made_whole_numbers_have_no_gradient():
    params = {"kernel": jnp.full((3, 2), 1.7)}
    whole = lambda p: jnp.sum(p["kernel"].astype(jnp.int32) @ jnp.ones((2, 1)))  # noqa: E731
    compare(whole, params, {"kernel": np.arange(4, dtype=np.int32)})


def layers(depth, width):
    rng = np.random.default_rng(0)
    draw = rng.normal(size=(depth, width, width)).astype(np.float32) / width**0.5
    return {f"layer{i}/kernel": jnp.asarray(kernel) for i, kernel in enumerate(draw)}


def chain(whole, partial, x):
    for kernel in partial.values():
        x = jnp.tanh(x @ kernel)
    return jnp.sum(x), ()


def compiled(positions, kernels, x):
    step = lambda kernels, x: interpreter.gradient(chain, {}, kernels, positions, x)[2]  # noqa: E731
    return jax.jit(step).lower(kernels, x).compile()


def test_what_is_structured_costs_its_part_of_the_weight_gradient_and_no_more():
    kernels, x = layers(6, 128), jnp.ones((256, 128))
    product = 2 * 256 * 128 * 128
    flops = {
        form: compiled({p: form(k) for p, k in kernels.items()}, kernels, x)
        for form in (anywhere, each_neuron, columns, rows)
    }
    flops = {form: program.cost_analysis()["flops"] for form, program in flops.items()}
    # Six products forward, five back to the inputs; six more for the weights.
    assert flops[anywhere] > 17 * product
    assert flops[each_neuron] < 11 * product * 1.05
    for slices in (columns, rows):  # a third of the weights' products
        assert 12.5 * product < flops[slices] < 13.3 * product


def test_one_dense_gradient_is_alive_at_a_time():
    depth, width, rows = 12, 512, 16
    kernels, x = layers(depth, width), jnp.ones((rows, width))
    positions = {path: anywhere(kernel, share=0.01) for path, kernel in kernels.items()}
    memory = compiled(positions, kernels, x).memory_analysis()
    whole = jax.jit(jax.grad(lambda k, x: chain({}, k, x)[0])).lower(kernels, x)
    dense = whole.compile().memory_analysis()
    assert dense.temp_size_in_bytes + dense.output_size_in_bytes > depth * 4 * width**2
    assert memory.temp_size_in_bytes < 3 * 4 * width**2
