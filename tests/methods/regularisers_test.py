"""Mixout, LNSR, L2-SP and re-initialisation against their formulas in NumPy."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import registry, trees
from subtune_jax.core.method import Evidence, Probe, Seen, Selection
from subtune_jax.selection import masks

SHAPES = {
    "stem/conv/kernel": (3, 3, 40, 5),
    "block1/dense/kernel": (300, 8),
    "block1/dense/bias": (8,),
    "block2/dense/kernel": (300, 8),
    "head/kernel": (8, 2),
    "head/bias": (2,),
}
KERNELS = [p for p in SHAPES if p.endswith("kernel") and not p.startswith("head/")]
BLOCKS = ("stem", "block1", "block2", "pooler", "head")


def draw(seed):
    rng = np.random.default_rng(seed)
    return {p: rng.normal(size=s).astype(np.float32) for p, s in SHAPES.items()}


def make_evidence(**more):
    return Evidence(trees.nest(draw(0)), BLOCKS, None, None, **more)


def load(method, **arguments):
    return registry.load("methods", {"name": method, **arguments})


def wide(flat):
    return {path: np.asarray(leaf, np.float64) for path, leaf in flat.items()}


def reached(evidence, mask):
    flags = trees.flatten(masks.expand(evidence.params, mask))
    return {path for path, flag in flags.items() if flag.all()}


@pytest.mark.parametrize("method", ["mixout", "lnsr", "l2_sp"])
def test_everything_below_the_head_is_trained(method):
    evidence = make_evidence()
    mask = load(method).init(evidence).mask
    assert reached(evidence, mask) == {p for p in SHAPES if not p.startswith("head/")}


def noises(selector, memory, values, p):
    """The noise of a step, from what the view makes of the values."""
    used = jax.jit(selector.view)(values, memory)
    assert used.keys() == set(KERNELS)
    base = draw(0)
    return {q: np.asarray(used[q]) != base[q] for q in KERNELS}, used


@pytest.mark.parametrize("each", ["input", "element"])
@pytest.mark.parametrize("p", [0.9, 0.3])
def test_mixout_is_its_formula(p, each):
    selector = load("mixout", p=p, each=each)
    memory = selector.init(make_evidence()).memory
    values = draw(1)
    noise, used = noises(selector, memory, values, p)
    p = round(256 * p) / 256
    now, base = wide(values), wide(draw(0))
    for path in KERNELS:
        m = noise[path].astype(np.float64)
        formula = (m * now[path] + (1 - m) * base[path] - p * base[path]) / (1 - p)
        np.testing.assert_allclose(used[path], formula, rtol=1e-4, atol=1e-5)
        kept = noise[path][..., 0] if path == KERNELS[0] else noise[path][:, 0]
        if each == "input":  # all that leaves an input, together
            axes = tuple(i for i in range(m.ndim) if i != m.ndim - 2)
            kept = noise[path].all(axes)
            np.testing.assert_array_equal(kept, noise[path].any(axes))
        else:
            assert not np.array_equal(noise[path].all(-1), noise[path].any(-1))
            kept = noise[path]
        spread = 5 * np.sqrt(p * (1 - p) / kept.size)
        assert abs(kept.mean() - (1 - p)) < spread
    first, second = (noise[f"block{i}/dense/kernel"] for i in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("each", ["input", "element"])
def test_mixouts_gradient_is_the_formulas(each):
    selector = load("mixout", p=0.75, each=each)
    memory, values, slopes = selector.init(make_evidence()).memory, draw(1), draw(2)
    noise, _ = noises(selector, memory, values, 0.75)

    def loss(values):
        used = {**values, **selector.view(values, memory)}
        return sum(jnp.sum(slopes[path] * used[path]) for path in SHAPES)

    grads = jax.jit(jax.grad(loss))(values)
    for path in SHAPES:
        factor = noise[path] / 0.25 if path in KERNELS else 1.0
        np.testing.assert_allclose(grads[path], factor * slopes[path], rtol=1e-6)


def test_mixout_draws_new_noise_in_every_step_and_changes_nothing_else():
    selector = load("mixout", p=0.5)
    memory, values = selector.init(make_evidence()).memory, draw(1)
    mask = {path: jnp.asarray(True) for path in SHAPES}

    @jax.jit
    def update(step, memory):
        moved = selector.update(
            Seen(step, values, values), Selection(mask, None, memory)
        )
        assert moved.grads is None and moved.selection.mask is mask
        return moved.selection.memory

    seen, total = [], {path: 0.0 for path in KERNELS}
    for step in range(64):
        noise, used = noises(selector, memory, values, 0.5)
        again, _ = noises(selector, memory, values, 0.5)
        assert all(np.array_equal(noise[p], again[p]) for p in KERNELS)
        seen.append(noise["block1/dense/kernel"][:, 0].tobytes())
        total = {p: total[p] + np.asarray(used[p], np.float64) / 64 for p in KERNELS}
        new = jax.tree.map(np.asarray, update(jnp.int32(step), memory))
        for path in KERNELS:
            np.testing.assert_array_equal(new["base"][path], draw(0)[path])
        assert new["key"].dtype == np.uint32 and new["key"].shape == memory["key"].shape
        memory = new
    assert len(set(seen)) == 64
    assert update._cache_size() == 1
    for path in KERNELS:  # its mean over steps is w
        apart = np.abs(total[path] - values[path]) / np.abs(
            values[path] - draw(0)[path]
        )
        assert apart.mean() < 0.15 and apart.max() < 0.7


def test_mixout_without_noise_is_full_fine_tuning():
    selector = load("mixout", p=0.0)
    values = draw(1)
    used = jax.jit(selector.view)(values, selector.init(make_evidence()).memory)
    for path in KERNELS:
        np.testing.assert_allclose(used[path], values[path], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("among", [".*kernel", "block1/.*"])
def test_l2_sp_is_half_the_squared_distance_and_half_the_heads_norm(among):
    selector = load("l2_sp", alpha=0.3, beta=0.07, among=among)
    memory = selector.init(make_evidence()).memory
    values, base = draw(1), wide(draw(0))
    slope = jax.jit(jax.value_and_grad(lambda v: selector.penalty(probe(v, memory))))
    penalty, grads = slope(values)
    expected, now = 0.0, wide(values)
    for path in SHAPES:
        grad = np.zeros(SHAPES[path])
        if path.startswith("head/"):
            if among == ".*kernel" and path == "head/kernel":
                expected += 0.07 / 2 * (now[path] ** 2).sum()
                grad = 0.07 * now[path]
        elif path.endswith("kernel") if among == ".*kernel" else "block1" in path:
            expected += 0.3 / 2 * ((now[path] - base[path]) ** 2).sum()
            grad = 0.3 * (now[path] - base[path])
        np.testing.assert_allclose(grads[path], grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


def test_l2_sp_is_zero_at_the_base_and_leaves_linear_probing_the_heads_norm():
    selector = load("l2_sp", beta=0.5)
    memory = selector.init(make_evidence()).memory
    values = draw(0)
    norm = 0.25 * (wide(values)["head/kernel"] ** 2).sum()
    penalty = jax.jit(lambda values: selector.penalty(probe(values, memory)))
    np.testing.assert_allclose(penalty(values), norm, rtol=1e-5)
    head = {path: x for path, x in values.items() if path.startswith("head/")}
    np.testing.assert_allclose(penalty(head), norm, rtol=1e-5)


def probe(values, memory, **more):
    default = Probe(
        params={},
        values=values,
        memory=memory,
        step=jnp.int32(0),
        key=jax.random.key(5),
        x=jnp.zeros((1, 1)),
        weight=jnp.ones(1),
        apply=None,
        start="stem",
    )
    return default._replace(**more)


CHAIN = ("embed", "block2", "block10", "pool", "head")  # 10 comes after 2


def linear(matrices):
    """A network of matrices, and `apply` of some of its blocks."""

    def apply(params, x, start, stop):
        for block in CHAIN[CHAIN.index(start) : CHAIN.index(stop)]:
            x = x @ params[block]["kernel"]
        return x

    return {block: {"kernel": m} for block, m in matrices.items()}, apply


@pytest.mark.parametrize("block", [None, "block2", "block10"])
def test_lnsr_and_its_gradient_are_the_sum_over_the_layers_above(block):
    rng = np.random.default_rng(0)
    drawn = {b: rng.normal(size=(4, 4)).astype(np.float32) for b in CHAIN}
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    x[0, 3:], x[2, 1:] = 0, 0  # padding at the end of texts
    weight = np.array([1, 1, 0], np.float32)
    params, apply = linear(drawn)
    selector = load("lnsr", weight=0.2, deviation=0.3, block=block)
    selector.init(Evidence(params, CHAIN, None, None))
    key = jax.random.key(5)

    @jax.jit
    def slope(params):
        def loss(params):
            more = {"params": params, "apply": apply, "x": x, "weight": weight}
            return selector.penalty(probe({}, None, start="embed", **more))

        return jax.value_and_grad(loss)(params)

    penalty, grads = slope(params)
    # All is linear: what noise does is the noise through the matrices.
    w = {b: np.asarray(m, np.float64) for b, m in drawn.items()}
    noise = 0.3 * np.asarray(jax.random.normal(key, x.shape), np.float64)
    noise[0, 3:], noise[2, 1:] = 0, 0
    expected, slopes = 0.0, {b: np.zeros((4, 4)) for b in CHAIN}
    above = ("block2", "block10") if block in (None, "block2") else ("block10",)
    for row in range(2):  # the third has no weight
        first, second = w[above[0]], w[above[-1]]
        e = noise[row]
        if len(above) == 2:
            a, b = e @ first, e @ first @ second @ w["pool"]
            expected += ((a**2).sum() + (b**2).sum()) / 2
            slopes["block2"] += e.T @ (a + b @ (second @ w["pool"]).T)
            slopes["block10"] += a.T @ b @ w["pool"].T
            slopes["pool"] += (a @ second).T @ b
        else:
            b = e @ second @ w["pool"]
            expected += (b**2).sum() / 2
            slopes["block10"] += e.T @ b @ w["pool"].T
            slopes["pool"] += (e @ second).T @ b
    np.testing.assert_allclose(penalty, 0.2 * expected, rtol=1e-4)
    for b in CHAIN:
        by_hand = 0.2 * slopes[b]
        np.testing.assert_allclose(grads[b]["kernel"], by_hand, rtol=1e-3, atol=1e-4)


def test_lnsr_of_an_mlp_is_the_literal_one():
    module = importlib.import_module("subtune_jax.backbones.mlp")
    backbone = module.make(**module.TINY)
    variables = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    selector = load("lnsr", weight=1.0, deviation=0.1, block="hidden02")
    params = jax.tree.map(np.asarray, variables.params)
    selector.init(Evidence(params, backbone.blocks, None, None))

    def apply(params, x, start, stop):
        return backbone.apply(params, variables.stats, x, start=start, stop=stop)[0]

    @jax.jit
    def penalty(params):
        more = {"params": params, "apply": apply, "x": images, "weight": np.ones(4)}
        return selector.penalty(probe({}, None, start="hidden01", **more))

    def hidden(x, block):
        y = x.reshape(4, -1) @ wide(trees.flatten(params))[f"{block}/dense/kernel"]
        return np.maximum(y / np.sqrt(1 + 1e-5), 0)  # statistics of a new network

    clean = hidden(images.astype(np.float64), "hidden01")
    noise = np.asarray(jax.random.normal(jax.random.key(5), (4, 16)), np.float64)
    apart = hidden(clean + 0.1 * noise, "hidden02") - hidden(clean, "hidden02")
    np.testing.assert_allclose(penalty(params), (apart**2).sum() / 4, rtol=1e-4)


def test_lnsr_is_nothing_where_the_head_alone_is_trained_or_there_are_no_rows():
    selector = load("lnsr")
    assert selector.penalty(probe({}, None, start="head")) == 0
    params, apply = linear({b: np.eye(1, dtype=np.float32) for b in CHAIN})

    @jax.jit
    def penalty(weight):
        more = {"params": params, "apply": apply, "x": jnp.ones((2, 1))}
        return selector.penalty(probe({}, None, start="embed", weight=weight, **more))

    assert penalty(np.zeros(2)) == 0 < penalty(np.ones(2))


def fresh(key):
    assert key == jax.random.fold_in(jax.random.key(3), 1)
    return {
        block: {"dense": {"kernel": np.full((2, 2), number, np.float64)}}
        for number, block in enumerate(BLOCKS, 1)
    }


def start_of(**arguments):
    params = {block: {"dense": {"kernel": np.zeros((2, 2))}} for block in BLOCKS}
    evidence = Evidence(params, BLOCKS, None, None, seed=3, init=fresh)
    return evidence, load("reinit", **arguments).init(evidence)


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        ({}, {"block2", "pooler"}),
        ({"count": 2}, {"block1", "block2", "pooler"}),
        ({"count": 0}, {"pooler"}),
        ({"count": 1, "above": False}, {"block2"}),
        ({"count": 0, "above": False}, set()),
        ({"count": 2, "pattern": "stem|block1"}, set(BLOCKS[:4])),
    ],
)
def test_reinit_trains_everything_and_starts_the_top_from_random_values(
    arguments, blocks
):
    evidence, selection = start_of(**arguments)
    assert masks.count(evidence.params, selection.mask) == 4 * 4
    assert set(selection.values) == {f"{block}/dense/kernel" for block in blocks}
    for path, array in selection.values.items():
        assert array.dtype == np.float32
        assert np.all(array == BLOCKS.index(path.split("/")[0]) + 1)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("mixout", {"p": 1.0}, r"mixout p=1.0 is outside \[0, 1\)"),
        ("mixout", {"p": -0.1}, r"mixout p=-0.1 is outside \[0, 1\)"),
        ("mixout", {"each": "row"}, "mixout each='row' is not known; there are el"),
        ("mixout", {"among": "nothing"}, "no path matches 'nothing'.*nearest"),
        ("mixout", {"among": ".*bias"}, r"'block1/dense/bias' \(8,\) is no matrix"),
        ("lnsr", {"weight": -1}, "lnsr weight=-1, deviation=0.05; both must be 0 or"),
        ("lnsr", {"deviation": -1}, "deviation=-1; both must be 0 or more"),
        ("lnsr", {"block": "block3"}, "lnsr has no layer 'block3'; did you mean"),
        ("lnsr", {"block": "stem"}, "lnsr has no layer 'stem'; there are block1"),
        ("lnsr", {"pattern": "layer"}, "no path matches .*layer.*nearest"),
        ("l2_sp", {"alpha": -1}, "l2_sp alpha=-1, beta=0.01; both must be 0 or more"),
        ("l2_sp", {"beta": -1}, "l2_sp alpha=0.1, beta=-1; both must be 0 or more"),
        ("l2_sp", {"among": "head/.*"}, "no path matches 'head/.*' in full; nearest"),
        ("reinit", {}, "reinit was given evidence without init; it draws from it"),
        ("reinit", {"pattern": "layer"}, "no path matches .*layer.*nearest"),
        ("reinit", {"count": 3}, r"count=3 is outside \[0, 2\]; block1, block2"),
        ("reinit", {"count": -1}, r"count=-1 is outside \[0, 2\]; block1, block2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(method, arguments, message):
    drawing = {"init": fresh} if arguments and method == "reinit" else {}
    with pytest.raises(ValueError, match=message) as error:
        load(method, **arguments).init(make_evidence(**drawing))
    assert "\n" not in str(error.value)
