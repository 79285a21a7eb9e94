"""TAPS against its formulas, written out in NumPy."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import registry, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.core.method import Evidence, Probe
from subtune_jax.optim import additive, partition

SHAPES = {
    "stem/conv/kernel": (2, 2, 1, 3),
    "stem/norm/scale": (3,),
    "stem/norm/bias": (3,),
    "block1/dense/kernel": (3, 4),
    "block1/dense/bias": (4,),
    "head/kernel": (4, 2),
    "head/bias": (2,),
}
LAYERS = {  # the leaves of each layer, by its kernel
    "stem/conv/kernel": ("stem/conv/kernel",),
    "block1/dense/kernel": ("block1/dense/kernel", "block1/dense/bias"),
}
BLOCKS = ("stem", "block1", "head")
LEAVES = [leaf for leaves in LAYERS.values() for leaf in leaves]


def draw(seed, shapes):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=s).astype(np.float32) for path, s in shapes.items()}


def make_evidence():
    return Evidence(trees.nest(draw(0, SHAPES)), BLOCKS, None, None)


def load(**arguments):
    return registry.load("methods", {"name": "taps", **arguments})


def make_probe(values, step=0):
    nothing = jnp.zeros(1)
    key = jax.random.key(0)
    return Probe({}, values, None, jnp.int32(step), key, nothing, nothing, None, "stem")


def made(scores, seed=7, **arguments):
    """The added arrays of a selection, with random deltas and these scores."""
    added = load(**arguments).init(make_evidence()).additive
    values = {
        name: draw(seed, {"": np.shape(array)})[""]
        for name, array in added.values.items()
    }
    for path, score in zip(LAYERS, scores, strict=True):
        values[f"{path}+score"] = np.float32(score)
    return added, values


def base():
    return {path: leaf for path, leaf in draw(0, SHAPES).items() if path in LEAVES}


def bits(leaf):
    return np.asarray(leaf).view(np.uint32)


def test_every_layer_has_a_difference_of_zero_and_a_score():
    selection = load(start=0.25).init(make_evidence())
    added = selection.additive
    assert set(added.paths) == set(LEAVES)
    expected = {f"{p}+delta": SHAPES[p] for p in LEAVES}
    expected |= {f"{path}+score": () for path in LAYERS}
    assert {name: np.shape(a) for name, a in added.values.items()} == expected
    for name, array in added.values.items():
        assert np.all(array == (0.25 if name.endswith("+score") else 0))
    merged = added.merge(base(), added.values)
    for path, leaf in base().items():
        np.testing.assert_array_equal(bits(merged[path]), bits(leaf))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scores", [(0.1, 0.0999), (-3, 5), (0.15, 0.15), (0, -1)])
def test_a_layer_changes_while_its_score_reaches_the_threshold(scores, compiled):
    added, values = made(scores)
    merge = jax.jit(added.merge) if compiled else added.merge
    merged = merge(base(), values)
    assert merged.keys() == set(LEAVES)
    for leaves, score in zip(LAYERS.values(), scores, strict=True):
        for leaf in leaves:
            delta = values[f"{leaf}+delta"]
            expected = base()[leaf] + delta if score >= 0.1 else base()[leaf]
            np.testing.assert_array_equal(bits(merged[leaf]), bits(expected))


@pytest.mark.parametrize("compiled", [False, True])
def test_an_inactive_layer_has_every_bit_of_the_base(compiled):
    added, values = made((0, 0))
    odd = np.array([-0.0, 0.0, 1e-40, -1e-45, 3e38, 1e-3, -7, 2**-126], np.float32)
    leaves = {path: np.resize(odd, SHAPES[path]) for path in LEAVES}
    for name in values:
        if name.endswith("+delta"):
            values[name] = np.resize(np.float32([np.inf, 1, 0, -5]), values[name].shape)
    merged = (jax.jit(added.merge) if compiled else added.merge)(leaves, values)
    for path in LEAVES:
        np.testing.assert_array_equal(bits(merged[path]), bits(leaves[path]))


@pytest.mark.parametrize("scores", [(0.1, 0.09), (0.09, 0.2), (1, 1), (-1, -1)])
def test_gradients_pass_straight_through_the_threshold(scores):
    added, values = made(scores)
    slopes = {path: x for path, x in draw(3, SHAPES).items() if path in LEAVES}

    def loss(leaves, values):
        merged = added.merge(leaves, values)
        return sum(jnp.sum(slopes[path] * merged[path]) for path in LEAVES)

    leaves, grads = jax.jit(jax.grad(loss, (0, 1)))(base(), values)
    for (path, own), score in zip(LAYERS.items(), scores, strict=True):
        to_score = 0.0
        for leaf in own:
            wide = slopes[leaf].astype(np.float64)
            np.testing.assert_array_equal(leaves[leaf], slopes[leaf])
            on = 1.0 if score >= 0.1 else 0.0
            np.testing.assert_allclose(grads[f"{leaf}+delta"], on * wide, rtol=1e-6)
            to_score += (wide * values[f"{leaf}+delta"]).sum()
        np.testing.assert_allclose(grads[f"{path}+score"], to_score, rtol=1e-5)


@pytest.mark.parametrize("scores", [(0.3, 0.05), (-0.2, 0.4)])
def test_the_penalty_is_the_mean_absolute_score(scores):
    _, values = made(scores)
    values |= {"head/kernel": np.ones((4, 2), np.float32)}
    selector = load(penalty=0.7, warmup_steps=3)
    on_values = lambda values, step: selector.penalty(make_probe(values, step))  # noqa: E731
    slope = jax.jit(jax.value_and_grad(on_values))
    expected = 0.7 * (abs(scores[0]) + abs(scores[1])) / 2
    for step, factor in ((0, 0), (2, 0), (3, 1), (9, 1)):
        penalty, grads = slope(values, step)
        np.testing.assert_allclose(penalty, factor * expected, rtol=1e-6)
        for path, score in zip(LAYERS, scores, strict=True):
            by_hand = factor * 0.7 / 2 * np.sign(score)
            np.testing.assert_allclose(grads[f"{path}+score"], by_hand, rtol=1e-6)
        others = [grad for name, grad in grads.items() if "+score" not in name]
        assert len(others) == 4 and not any(np.any(grad) for grad in others)


def literal(targets, penalty, rate, steps):
    """Gradient descent on half the squared distance to targets, in float64."""
    w0 = {path: leaf.astype(np.float64) for path, leaf in base().items()}
    delta = {path: np.zeros(SHAPES[path]) for path in LEAVES}
    score, history = dict.fromkeys(LAYERS, 0.15), []
    for step in range(steps):
        new = {}
        for path, leaves in LAYERS.items():
            on, to_score = score[path] >= 0.1, 0.0
            for leaf in leaves:
                used = w0[leaf] + delta[leaf] if on else w0[leaf]
                grad = used - targets(step)[leaf]
                to_score += (grad * delta[leaf]).sum()
                if on:
                    new[leaf] = delta[leaf] - rate * grad
            to_score += penalty / len(LAYERS) * np.sign(score[path])
            score[path] -= rate * to_score
        delta |= new
        history.append({path: bool(s >= 0.1) for path, s in score.items()})
    return delta, score, history


def test_training_is_the_literal_one_and_layers_leave_and_come_back():
    penalty, rate, steps = 1.0, 0.02, 60
    far = {path: x for path, x in draw(9, SHAPES).items() if path in LEAVES}

    def targets(step):
        """Near the base at first, so that scores fall; then far from it."""
        near = {path: base()[path] + 0.3 * np.sign(far[path]) for path in LEAVES}
        return near if step < 30 else {p: base()[p] + 3 * far[p] for p in LEAVES}

    selector = load(penalty=penalty)
    added = selector.init(make_evidence()).additive

    @jax.jit
    def slope(values, targets):
        def loss(values):
            merged = added.merge(base(), values)
            apart = sum(jnp.sum((merged[p] - targets[p]) ** 2) for p in LEAVES)
            return apart / 2 + selector.penalty(make_probe(values))

        return jax.grad(loss)(values)

    delta, score, history = literal(targets, penalty, rate, steps)
    values, active = dict(added.values), []
    for step in range(steps):
        grads = slope(values, targets(step))
        values = {name: v - rate * grads[name] for name, v in values.items()}
        active.append({path: bool(values[f"{path}+score"] >= 0.1) for path in LAYERS})
    assert active == history
    seen = [[active[path] for active in history] for path in LAYERS]
    assert all(s[0] and not all(s) and s[-1] for s in seen)  # they leave, come back
    for path in LAYERS:
        np.testing.assert_allclose(values[f"{path}+score"], score[path], rtol=1e-4)
    for leaf in LEAVES:
        np.testing.assert_allclose(values[f"{leaf}+delta"], delta[leaf], atol=1e-5)


def test_the_penalty_is_nothing_while_the_head_alone_is_trained():
    head = {"head/kernel": np.ones((4, 2), np.float32)}
    assert load().penalty(make_probe(head)) == 0


@pytest.mark.parametrize("network", ["mlp", "vit", "resnet"])
def test_the_mechanism_takes_what_it_adds(network):
    module = importlib.import_module(f"subtune_jax.backbones.{network}")
    backbone = module.make(**module.TINY)
    shapes = jax.eval_shape(lambda key: backbone.init(key, 3), jax.random.key(0))
    params, stats = jax.tree.map(lambda s: np.ones(s.shape, np.float32), shapes)
    selection = load().init(Evidence(params, backbone.blocks, None, None))
    additive.check(params, selection.additive)
    flat = trees.flatten(params)
    below = {path: leaf for path, leaf in flat.items() if not path.startswith("head/")}
    kernels = [path for path in below if path.endswith("kernel")]
    beside = {path.rsplit("/", 1)[0] + "/bias" for path in kernels} & below.keys()
    gated = sum(below[path].size for path in {*kernels, *beside})
    norms = sum(x.size for path, x in below.items() if "norm" in path)
    plan = partition.make(Variables(params, stats), backbone.blocks, selection)
    assert plan.counts["selected"] == gated + len(kernels)
    assert plan.counts["extras"] == norms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -1.0}, "taps penalty=-1.0, .*they must be 0 or more"),
        ({"warmup_steps": -1}, "warmup_steps=-1.*they must be 0 or more"),
        ({"start": 0.05}, "start=0.05, threshold=0.1; .*start at least threshold"),
        ({"among": "nothing"}, "no path matches 'nothing' in full; nearest of"),
        ({"among": "head/kernel"}, "no path matches 'head/kernel' in full"),
        ({"among": ".*bias"}, r"'block1/dense/bias' \(4,\) is no matrix"),
        ({"extras": "nothing"}, "no path matches 'nothing' in full; nearest of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        load(**arguments).init(make_evidence())
    assert "\n" not in str(error.value)
