"""Child-Tuning-F: what it draws, and what it does with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Seen, Selection
from subtune_jax.methods import child_tuning_f
from subtune_jax.selection import masks

SHAPES = {
    "embed/kernel": (3, 4),
    "block1/dense/kernel": (5, 7),
    "block1/dense/bias": (7,),
    "layer2/conv/kernel": (3, 3, 5, 2),
    "head/kernel": (5, 3),
}
DRAWN = ["block1/dense/kernel", "layer2/conv/kernel"]


def make_evidence(seed=0):
    params = trees.nest({path: np.ones(shape) for path, shape in SHAPES.items()})
    return Evidence(params, ("embed", "block1", "layer2", "head"), None, None, seed)


@functools.cache
def compiled(keep_ratio):
    """A step of plain gradient descent by `update`, and its traces."""
    selector, traces = child_tuning_f.make(keep_ratio), []

    def step(number, values, mask, memory, grads):
        traces.append(number)
        before = Selection(mask, memory=memory)
        moved = selector.update(Seen(number, values, grads), before)
        values = {path: values[path] - moved.grads[path] / 8 for path in values}
        selection = moved.selection
        return moved.grads, values, selection.mask, selection.memory

    return jax.jit(step), traces


def steps(count, seed=0, keep_ratio=0.3):
    """Gradients, and what becomes of mask, gradients and values, of so many steps."""
    selection = child_tuning_f.make(keep_ratio).init(make_evidence(seed))
    flat, (step, traces) = trees.flatten(selection.mask), compiled(keep_ratio)
    mask = {path: jnp.asarray(flat[path]) for path in DRAWN}
    values = {path: jnp.ones(shape) for path, shape in SHAPES.items()}
    memory, rng = jax.tree.map(jnp.asarray, selection.memory), np.random.default_rng(1)
    for number in range(count):
        grads = {p: np.float32(rng.normal(size=s)) for p, s in SHAPES.items()}
        after = step(jnp.int32(number), values, mask, memory, grads)
        divided, values, mask, memory = after
        yield grads, divided, values, mask
    assert len(traces) == 1


def test_what_is_picked_has_its_gradient_divided_by_the_probability():
    weights = {path: np.ones(shape) for path, shape in SHAPES.items()}
    for grads, divided, values, mask in steps(5):
        assert sorted(mask) == DRAWN
        for path, weight in weights.items():
            gradient = grads[path].astype(np.float64)
            if path in DRAWN:
                gradient = np.asarray(mask[path]) / 0.3 * gradient
            np.testing.assert_allclose(divided[path], gradient, rtol=1e-6)
            weights[path] = weight - gradient / 8
            np.testing.assert_allclose(
                values[path], weights[path], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("keep_ratio", [0.3, 1.0])
def test_every_step_draws_anew_with_the_probability_asked_for(keep_ratio):
    draws = {path: [] for path in DRAWN}
    for *_, mask in steps(300, keep_ratio=keep_ratio):
        for path in DRAWN:
            draws[path].append(np.asarray(mask[path]).ravel())
    variance = keep_ratio * (1 - keep_ratio)
    for rows in draws.values():
        rows = np.array(rows) - keep_ratio
        assert abs(rows.mean()) <= 4 * np.sqrt(variance / rows.size)
        # Neighbouring steps, and both halves of a number, know nothing of each other.
        for pair in [(rows[1:], rows[:-1]), (rows[:, 1:], rows[:, :-1])]:
            bound = 4 * variance / np.sqrt(pair[0].size)
            assert abs(np.mean(pair[0] * pair[1])) <= bound


def test_the_seed_decides():
    def first(seed):
        *_, mask = next(iter(steps(1, seed)))
        return np.concatenate([np.ravel(mask[path]) for path in DRAWN])

    assert np.array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1e-9, 1 / 65536), (0.25, 0.25), (0.3, 19661 / 65536)]
)
def test_the_coin_has_65536_sides(ratio, expected, monkeypatch):
    every = jnp.arange(65536, dtype=jnp.uint32)
    words = every[::2] | every[1::2] << 16  # each number of 16 bits once
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, kind: words)
    flags = child_tuning_f.draw(None, (256, 256), ratio)
    assert flags.shape == (256, 256)
    assert np.mean(flags) == expected


def test_kernels_of_repeated_blocks_are_drawn_for_or_what_is_named():
    evidence = make_evidence()

    def paths(mask):
        return {p for p, flag in trees.flatten(masks.reach(mask)).items() if flag}

    selection = child_tuning_f.make().init(evidence)
    assert paths(selection.reach) == paths(selection.mask) == set(DRAWN)
    assert paths(selection.extras) == {"embed/kernel", "block1/dense/bias"}
    some = child_tuning_f.make(pattern="embed|lay.*", head=True).init(evidence)
    assert paths(some.reach) == {"embed/kernel", "layer2/conv/kernel"}
    arguments = {"pattern": ".*", "among": ".*", "head": True}
    released = child_tuning_f.make(**arguments).init(evidence)
    assert paths(released.reach) == set(SHAPES)
    assert not paths(released.extras)
    assert child_tuning_f.make(outside=False).init(evidence).extras is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_ratio": 0.0}, r"keep_ratio=0.0 is outside \(0, 1\]"),
        ({"keep_ratio": 1.1}, r"keep_ratio=1.1 is outside \(0, 1\]"),
        ({"pattern": "head"}, r"no path matches '\(\?=\(\?:head\)/\).*' in full"),
        ({"among": "nothing"}, "no path matches .*nothing.* in full"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        child_tuning_f.make(**arguments).init(make_evidence())
    assert "\n" not in str(error.value)
