"""GMT against its rule written out in loops, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Seen, Selection
from subtune_jax.methods import gmt
from subtune_jax.selection import masks

SHAPES = {
    "embed/table": (5, 4),
    "block1/dense/kernel": (4, 5),
    "block1/dense/bias": (5,),
    "head/kernel": (5, 3),
    "head/bias": (3,),
}
BASE = [path for path in SHAPES if not path.startswith("head/")]
RNG = np.random.default_rng(0)
PARAMS = {path: RNG.normal(size=shape) for path, shape in SHAPES.items()}
EVIDENCE = Evidence(trees.nest(PARAMS), ("embed", "block1", "head"), None, None)


def literal_mask(sizes, keep_ratio):
    """Sorted one by one, ties to the first: half rounded up, one at least."""
    flat = [float(size) for size in sizes.ravel()]
    order = sorted(range(len(flat)), key=lambda place: -flat[place])
    marks = np.zeros(len(flat), bool)
    for place in order[: max(1, int(keep_ratio * len(flat) + 0.5))]:
        marks[place] = True
    return marks.reshape(sizes.shape)


@pytest.mark.parametrize(
    ("keep_ratio", "head"), [(0.01, False), (0.5, True), (1.0, False)]
)
def test_every_step_keeps_the_largest_gradients_of_each_array(keep_ratio, head):
    selector = gmt.make(keep_ratio, head=head)
    selection = selector.init(EVIDENCE)
    flat, traces = trees.flatten(selection.mask), []
    reached = [p for p, flag in trees.flatten(selection.reach).items() if flag]
    assert set(reached) == set(SHAPES if head else BASE)

    @jax.jit
    def step(number, values, mask, grads):
        traces.append(number)
        seen = Seen(number, values, grads)
        moved = selector.update(seen, Selection(mask))
        assert moved.grads is None
        mask = moved.selection.mask
        kept = {p: jnp.where(mask.get(p, True), grads[p], 0) for p in grads}
        return {p: values[p] - kept[p] / 8 for p in values}, mask

    mask = {path: jnp.asarray(flat[path]) for path in reached}
    weights = {p: RNG.integers(-9, 9, s).astype(float) for p, s in SHAPES.items()}
    values = {path: jnp.float32(weight) for path, weight in weights.items()}
    for number in range(4):
        grads = {p: RNG.integers(-3, 4, s).astype(float) for p, s in SHAPES.items()}
        exact = {path: jnp.float32(grad) for path, grad in grads.items()}
        values, mask = step(jnp.int32(number), values, mask, exact)
        for path in reached:
            expected = literal_mask(np.abs(grads[path]), keep_ratio)
            np.testing.assert_array_equal(mask[path], expected)
            grads[path] = grads[path] * expected
        for path in SHAPES:
            weights[path] = weights[path] - grads[path] / 8
            np.testing.assert_array_equal(values[path], weights[path])
    assert len(traces) == 1


@pytest.mark.parametrize("keep_ratio", [0.1, 0.5])
def test_the_compact_form_has_the_positions_of_the_dense_one(keep_ratio):
    compact = gmt.make(keep_ratio, compact=True)
    selection = compact.init(EVIDENCE)
    assert selection.reach is None
    flags = trees.flatten(masks.expand(EVIDENCE.params, selection.mask))
    grads = {path: RNG.integers(-3, 4, SHAPES[path]).astype(float) for path in BASE}
    exact = {path: jnp.float32(grad) for path, grad in grads.items()}
    mask = {path: jnp.int32(np.flatnonzero(flags[path])) for path in BASE}
    update = jax.jit(lambda seen, mask: compact.update(seen, Selection(mask)).selection)
    positions = update(Seen(jnp.int32(0), {}, exact), mask).mask
    for path, grad in grads.items():
        expected = np.flatnonzero(literal_mask(np.abs(grad), keep_ratio))
        np.testing.assert_array_equal(positions[path], expected)
        assert positions[path].shape == mask[path].shape
        assert positions[path].dtype == jnp.int32


def test_what_it_does_not_choose_from_rides_along():
    selection = gmt.make(among=".*kernel").init(EVIDENCE)
    extras = trees.flatten(masks.reach(selection.extras))
    rest = {"embed/table", "block1/dense/bias"}
    assert {path for path in SHAPES if extras[path]} == rest
    assert gmt.make(among=".*kernel", outside=False).init(EVIDENCE).extras is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_ratio": 0.0}, r"gmt keep_ratio=0.0 is outside \(0, 1\]"),
        ({"keep_ratio": 1.1}, r"gmt keep_ratio=1.1 is outside \(0, 1\]"),
        ({"head": True, "compact": True}, "gmt head=True, compact=True; only one"),
        ({"among": "nothing"}, "no path matches 'nothing' in full"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        gmt.make(**arguments).init(EVIDENCE)
    assert "\n" not in str(error.value)
