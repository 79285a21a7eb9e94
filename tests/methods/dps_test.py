"""DPS against literal simulations of its stages, in float64 and in torch's order."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import trees
from subtune_jax.core.method import Evidence, Seen, Selection
from subtune_jax.methods import dps_dense, dps_mix
from subtune_jax.selection import masks, stages

METHODS = {"dps_dense": dps_dense, "dps_mix": dps_mix}
SHAPES = {
    "embed/table": (5, 4),
    "block1/dense/kernel": (4, 5),
    "block1/dense/bias": (5,),
    "block2/conv/kernel": (2, 3, 3),
    "head/kernel": (5, 3),
    "head/bias": (3,),
}
KERNELS = [path for path in SHAPES if path.endswith("kernel")]
RATE = 0.125


def draw(rng, low=-2, high=3):
    """Whole numbers: float32 is exact, and there are ties."""
    return {p: rng.integers(low, high, s).astype(np.float32) for p, s in SHAPES.items()}


def make_evidence(seed=0, train_steps=0):
    params = trees.nest(draw(np.random.default_rng(9)))
    blocks = ("embed", "block1", "block2", "head")
    return Evidence(params, blocks, None, None, seed, train_steps=train_steps)


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


@functools.cache
def compiled(method, drop_ratio):
    """A step of plain gradient descent by `view` and `update`, and its traces."""
    selector, traces = METHODS[method].make(drop_ratio=drop_ratio), []
    view = selector.view or (lambda values, memory: {})

    def step(number, values, mask, memory, upstream, decay, mask_all):
        traces.append(number)
        used, back = jax.vjp(lambda v: {**v, **view(v, memory)}, values)
        grads = back(upstream)[0]
        before = Selection(mask, memory=memory)
        moved = selector.update(Seen(number, values, grads), before).selection

        def descend(path, value):
            moves = moved.mask.get(path, True)
            change = RATE * jnp.where(moves, grads[path], 0)
            return value - change - jnp.where(moves | mask_all, decay * value, 0)

        after = {path: descend(path, value) for path, value in values.items()}
        return used, grads, after, moved.mask, moved.memory

    return jax.jit(step), traces


class Run:
    """A selection and the values it trains, step by step."""

    def __init__(self, method, stage_steps, drop_ratio=0.3):
        make, evidence = METHODS[method].make, make_evidence()
        selection = make(drop_ratio, stage_steps=stage_steps).init(evidence)
        flat, reach = trees.flatten(selection.mask), trees.flatten(selection.reach)
        mask = {path: flat[path] for path in reach if reach[path]}
        values = trees.flatten(evidence.params)
        state = values, mask, selection.memory
        self.values, self.mask, self.memory = jax.tree.map(jnp.asarray, state)
        self.count, self.of = 0, (method, drop_ratio)

    def step(self, upstream, decay=0.0, mask_all=False):
        """Takes the gradient of what the network uses; returns that, and the mask."""
        state = self.values, self.mask, self.memory
        before, (step, traces) = shapes_of(state), compiled(*self.of)
        number = jnp.int32(self.count)
        used, grads, *state = step(number, *state, upstream, decay, mask_all)
        assert shapes_of(tuple(state)) == before and len(traces) == 1
        self.values, self.mask, self.memory = state
        self.count += 1
        return used, grads, jax.tree.map(np.asarray, self.mask)


def literal_mask(scores, drop_ratio):
    """The ceil(N (1 - p)) largest, sorted one by one, ties to the first."""
    flat = [float(score) for score in scores.ravel()]
    order = sorted(range(len(flat)), key=lambda place: -flat[place])
    marks = np.zeros(len(flat), bool)
    for place in order[: math.ceil(len(flat) * (1 - drop_ratio))]:
        marks[place] = True
    return marks.reshape(scores.shape)


@pytest.mark.parametrize(
    ("stage_steps", "drop_ratio"), [(1, 0.3), (2, 0.5), (3, 0.3), (3, 0.0)]
)
def test_dense_is_its_two_stages_by_turns(stage_steps, drop_ratio):
    run = Run("dps_dense", stage_steps, drop_ratio)
    rng, sums, mask, partial = np.random.default_rng(1), {}, {}, 0
    weights = {p: np.asarray(x, np.float64) for p, x in run.values.items()}
    for forward in range(1, 5 * stage_steps + 2):
        grads = draw(rng)
        first = (forward - 1) % stage_steps == 0
        explores = math.ceil(forward / stage_steps) % 2 == 1
        if first and not explores:
            mask = {p: literal_mask(sums[p], drop_ratio) for p in KERNELS}
        for path, weight in weights.items():
            moves = np.ones(weight.shape, bool)
            if path in KERNELS and explores:
                square = grads[path].astype(np.float64) ** 2 / 1000
                sums[path] = square if first else sums[path] + square
            elif path in KERNELS:
                moves = mask[path]
                partial += np.sum(~moves)
            weights[path] = weight - RATE * grads[path] * moves
        _, _, mask = run.step(grads)
        for path in KERNELS:
            expected = np.ones(SHAPES[path], bool) if explores else mask[path]
            np.testing.assert_array_equal(mask[path], expected)
            accumulated = np.asarray(run.memory["squares"][path]) / 1000
            np.testing.assert_allclose(accumulated, sums[path], rtol=1e-6)
        for path, weight in weights.items():
            np.testing.assert_array_equal(run.values[path], weight)
    assert (partial > 0) == (drop_ratio > 0)


def literal_scores(squares, times, stage_steps):
    scores = np.zeros(squares.shape)
    for place in np.ndindex(*squares.shape):
        scores[place] = squares[place] / max(times[place], 1)
        if stage_steps >= 50:
            scores[place] *= math.exp(-times[place] / stage_steps)
    return scores


class Literal:
    """DPS Mix of one array as torch runs it: forward, backward, step."""

    def __init__(self, weight, stage_steps, drop_ratio):
        self.weight = np.asarray(weight, np.float64)
        self.base = self.weight.copy()
        self.stage_steps, self.p, self.forwards = stage_steps, drop_ratio, 0

    def forward(self, drawn):
        """The weight that is used; `drawn` is the noise if this step draws any."""
        self.forwards += 1
        self.first = (self.forwards - 1) % self.stage_steps == 0
        self.explores = math.ceil(self.forwards / self.stage_steps) % 2 == 1
        if self.explores:
            self.n, target = drawn.astype(float), self.base
        else:
            if self.first:
                self.target = self.weight.copy()
                scores = literal_scores(self.squares, self.times, self.stage_steps)
                self.n = literal_mask(scores, self.p).astype(float)
            target = self.target
        mixed = (1 - self.n) * target + self.n * self.weight - self.p * target
        return mixed / (1 - self.p)

    def backward(self, upstream):
        """The gradient in the weight."""
        if self.explores:
            square = np.asarray(upstream, np.float64) ** 2 * self.n / 1000
            self.squares = square if self.first else self.squares + square
            self.times = self.n.copy() if self.first else self.times + self.n
        return upstream * self.n

    def step(self, gradient, decay, mask_all):
        moves = self.n if not (self.explores or mask_all) else 1
        self.weight = self.weight - RATE * gradient - moves * decay * self.weight


@pytest.mark.parametrize(
    ("stage_steps", "drop_ratio", "decay", "mask_all"),
    [
        (1, 0.3, 0.0, False),
        (3, 0.5, 0.0, False),
        (3, 0.3, 1 / 16, False),
        (4, 0.3, 1 / 16, True),  # decay moves what is masked, as in the released code
        (49, 0.3, 0.0, False),
        (50, 0.3, 0.0, False),
    ],
)
def test_mix_is_its_two_stages_by_turns(stage_steps, drop_ratio, decay, mask_all):
    run = Run("dps_mix", stage_steps, drop_ratio)
    rng = np.random.default_rng(2)
    every = {
        path: Literal(run.values[path], stage_steps, drop_ratio) for path in KERNELS
    }
    for _ in range(5 * stage_steps + 1 if stage_steps < 49 else 2 * stage_steps + 2):
        upstream, drawn = draw(rng), run.memory["kept"]
        expected = {p: each.forward(np.asarray(drawn[p])) for p, each in every.items()}
        used, grads, mask = run.step(upstream, decay, mask_all)
        for path, each in every.items():
            np.testing.assert_allclose(used[path], expected[path], 1e-4, 1e-4)
            gradient = each.backward(upstream[path])
            np.testing.assert_array_equal(grads[path], gradient)
            moves = np.ones(SHAPES[path]) if each.explores else each.n
            np.testing.assert_array_equal(mask[path], moves == 1)
            sums = np.asarray(run.memory["squares"][path]) / 1000
            np.testing.assert_allclose(sums, each.squares, rtol=1e-6)
            times = np.broadcast_to(run.memory["times"][path], SHAPES[path])
            np.testing.assert_array_equal(times, each.times)
            each.step(gradient, decay, mask_all)
            np.testing.assert_allclose(run.values[path], each.weight, 1e-4, 1e-4)


def test_mix_counts_against_what_was_often_trained_from_50_steps_on():
    """The simulation above would not see the factor if it changed no mask."""
    rng = np.random.default_rng(0)
    squares, times = rng.integers(1, 90, (6, 7)), rng.integers(1, 60, (6, 7))
    plain = literal_mask(literal_scores(squares, times, 49), 0.5)
    rare = literal_mask(literal_scores(squares, times, 50), 0.5)
    assert np.any(plain != rare)
    for stage_steps, expected in [(49, plain), (50, rare)]:
        memory = {
            "stage_steps": stage_steps,
            "squares": {"a": jnp.float32(squares)},
            "times": {"a": jnp.float32(times)},
        }
        marks = stages.largest(dps_mix._scores(memory), 0.5)["a"]
        np.testing.assert_array_equal(marks, expected)


def literal_descent(weights, x, y, run_steps):
    """Two layers on half the squared error under DPS Mix, by hand: what is used."""
    layers = [Literal(weight, 3, 0.3) for weight in weights]
    for drawn in run_steps:
        first, second = (
            layer.forward(np.asarray(noise))
            for layer, noise in zip(layers, drawn, strict=True)
        )
        hidden = np.tanh(x @ first)
        error = (hidden @ second - y) / len(x)
        below = (error @ second.T) * (1 - hidden**2)
        for layer, upstream in zip(
            layers, (x.T @ below, hidden.T @ error), strict=True
        ):
            layer.step(layer.backward(upstream), 0.0, False)
        yield first, second, layers


def test_mix_trains_two_layers_as_by_hand():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 6)), rng.normal(size=(7, 3))
    weights = [rng.normal(size=(6, 5)), rng.normal(size=(5, 3))]
    names = ["a/kernel", "head/kernel"]
    params = {"a": {"kernel": weights[0]}, "head": {"kernel": weights[1]}}
    selector = dps_mix.make(drop_ratio=0.3, stage_steps=3)
    selection = selector.init(Evidence(params, ("a", "head"), None, None, 5))

    def loss(values, memory):
        used = selector.view(values, memory)
        guess = jnp.tanh(x @ used[names[0]]) @ used[names[1]]
        return jnp.sum(jnp.square(guess - y)) / len(x) / 2

    @jax.jit
    def step(number, values, mask, memory):
        grads = jax.grad(loss)(values, memory)
        before = Selection(mask, memory=memory)
        moved = selector.update(Seen(number, values, grads), before).selection
        kept = {p: jnp.where(moved.mask[p], g, 0) for p, g in grads.items()}
        return {p: values[p] - RATE * kept[p] for p in kept}, moved.mask, moved.memory

    mask = trees.flatten(selection.mask)
    values = {p: jnp.float32(w) for p, w in zip(names, weights, strict=True)}
    memory, noise = selection.memory, [None]

    def drawn():
        for _ in range(14):
            noise[0] = [memory["kept"][name] for name in names]
            yield noise[0]

    for number, expected in enumerate(literal_descent(weights, x, y, drawn())):
        used = selector.view(values, memory)
        values, mask, memory = step(number, values, mask, memory)
        for name, weight, layer in zip(names, expected[:2], expected[2], strict=True):
            np.testing.assert_allclose(used[name], weight, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(values[name], layer.weight, rtol=1e-3, atol=1e-4)
            if not layer.explores:
                np.testing.assert_array_equal(mask[name], layer.n == 1)
    assert number == 13 and np.any(layer.weight != weights[1])


def test_mix_draws_one_number_an_input_anew_in_every_step():
    run = Run("dps_mix", stage_steps=400)
    grads, seen = draw(np.random.default_rng(0)), {path: [] for path in KERNELS}
    for _ in range(300):
        for path, noise in run.memory["kept"].items():
            rows = np.asarray(noise)
            assert np.all(rows == rows[..., :1])
            seen[path].append(rows[..., 0].ravel())
        run.step(grads)
    for rows in seen.values():
        rate, error = np.mean(rows), np.sqrt(0.3 * 0.7 / np.size(rows))
        assert abs(rate - 0.7) < 4 * error
        # Draws of neighbouring steps, and of neighbouring inputs, know nothing of
        # each other.
        rows = np.array(rows) - 0.7
        for pair in [(rows[1:], rows[:-1]), (rows[:, 1:], rows[:, :-1])]:
            assert abs(np.mean(pair[0] * pair[1])) < 4 * 0.21 / np.sqrt(pair[0].size)


def test_mix_draws_by_the_seed():
    def first(seed):
        kept = dps_mix.make(stage_steps=3).init(make_evidence(seed)).memory["kept"]
        return np.concatenate([kept[path].ravel() for path in KERNELS])

    assert np.array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))


@pytest.mark.parametrize("method", METHODS)
def test_kernels_are_reached_and_the_rest_rides_along(method):
    evidence = make_evidence()
    for head in (True, False):
        selection = METHODS[method].make(stage_steps=3, head=head).init(evidence)
        reach = trees.flatten(masks.reach(selection.reach))
        below = [path for path in KERNELS if not path.startswith("head/")]
        reached = KERNELS if head else below
        assert [path for path in SHAPES if reach[path]] == reached
        flags = trees.flatten(selection.mask)
        assert [path for path in SHAPES if np.all(flags[path])] == below
        assert all(flags[path].shape == SHAPES[path] for path in reached)
        extras = trees.flatten(masks.reach(selection.extras))
        rest = ["embed/table", "block1/dense/bias"]
        assert [path for path in SHAPES if extras[path]] == rest
    arguments = {"stage_steps": 3, "outside": False, "among": "block1/.*kernel"}
    selection = METHODS[method].make(**arguments).init(evidence)
    assert masks.count(evidence.params, selection.reach) == 4 * 5
    assert selection.extras is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("train_steps", "arguments", "expected"),
    [
        (690, {}, 34),  # MRPC of the released scripts
        (1605, {}, 80),  # CoLA
        (19, {}, 1),
        (19, {"update_ratio": 0.5}, 9),
        (690, {"stage_steps": 7}, 7),
        (0, {"stage_steps": 7}, 7),
    ],
)
def test_a_stage_is_a_share_of_the_run(method, train_steps, arguments, expected):
    selector = METHODS[method].make(**arguments)
    memory = selector.init(make_evidence(train_steps=train_steps)).memory
    assert memory["stage_steps"] == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_ratio": 1.0}, r"drop_ratio=1.0, .*they must be in \[0, 1\), in"),
        ({"drop_ratio": -0.1}, "drop_ratio=-0.1"),
        ({"update_ratio": 0.0}, "update_ratio=0.0"),
        ({"update_ratio": 1.5}, "update_ratio=1.5"),
        ({"stage_steps": -1}, "stage_steps=-1; they must be"),
        ({"stage_steps": 1.5}, "stage_steps=1.5; they must be"),
        ({}, "evidence without train_steps; give stage_steps"),
        ({"stage_steps": 1, "among": "nothing"}, "no path matches 'nothing' in full"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(method, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        METHODS[method].make(**arguments).init(make_evidence())
    assert "\n" not in str(error.value)


def test_mix_refuses_vectors():
    with pytest.raises(ValueError, match=r"bias' \(5,\) is no matrix; name"):
        dps_mix.make(among=".*bias", stage_steps=1).init(make_evidence())
