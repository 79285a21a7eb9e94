"""SpIEL against its literal statement: a whole run of the compiled step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from subtune_jax.backbones import mlp
from subtune_jax.core import devices, losses, trees
from subtune_jax.core.method import Evidence
from subtune_jax.data import batches as data
from subtune_jax.data import dataset
from subtune_jax.methods import spiel
from subtune_jax.optim import dynamic_mask, mask_rule, optimizer, partition
from subtune_jax.training import step
from subtune_jax.training.run import fit

STEPS, PERIOD, LOOKS, DROPS, FRACTION = 17, 6, 3, 0.5, 0.1
B1, B2, EPSILON, CLASSES = 0.9, 0.999, 1e-8, 3


@pytest.fixture(scope="module")
def world():
    backbone = mlp.make(**mlp.TINY)
    variables = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), CLASSES)
    variables = jax.tree.map(np.asarray, variables)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, *backbone.input_shape), dtype=np.uint8)
    return backbone, variables, images, rng.integers(0, CLASSES, 24).astype(np.int32)


def selection(world, **arguments):
    backbone, variables, *_ = world
    evidence = Evidence(variables.params, backbone.blocks, None, None, 3, 1, STEPS)
    plain = {"fraction": FRACTION, "period_steps": PERIOD, "drop_ratio": DROPS}
    selector = spiel.make(**{**plain, "accumulate_steps": LOOKS, **arguments})
    return selector, selector.init(evidence)


def batches(world):
    *_, images, labels = world
    feed = data.training(dataset.resident(images, labels), data.rows(8, 1), 0)
    return feed, [piece["index"] for piece in feed.pieces(0, STEPS)]


def run(world, selector, start):
    """The state after every step, and the programs that were compiled."""
    backbone, variables, *_ = world
    plan = partition.make(variables, backbone.blocks, start, moves=True)
    made = optimizer.make("adam", learning_rate=3e-2)
    rule = mask_rule.make(selector, made, plan)
    flat = trees.flatten(variables.params)
    leaves = {path: flat[path] for path in plan.places}
    state = dynamic_mask.begin(rule, plan.values, leaves, plan.moving, plan.memory)
    recipe = step.Recipe(
        backbone,
        losses.cross_entropy,
        CLASSES,
        made.transform(STEPS, backbone.blocks, dynamic_mask.ages(rule, state)),
        rule=rule,
    )
    first = step.start(
        recipe, flat, variables.stats, plan.values, plan.positions, state
    )
    where = devices.choose("auto", jax.devices()[:1])
    trainer = steps.compiled(where, recipe, first, {}, batches(world)[0])
    history = []

    def keep(done, state, metrics):
        history.append(devices.to_host(state))

    fit(trainer, STEPS, watch=keep)
    return history, trainer.store.compiled


def literal(world, start):
    """Positions and leaves after every step, and the ages of the first array."""
    backbone, variables, images, labels = world

    @jax.jit
    def slope(params, x, y):
        def loss_of(params):
            logits, _ = backbone.apply(params, variables.stats, x)
            return losses.cross_entropy(logits, jax.nn.one_hot(y, CLASSES)).mean()

        return trees.flatten(jax.grad(loss_of)(params))

    base = {
        p: np.array(x, np.float64) for p, x in trees.flatten(variables.params).items()
    }
    now = {p: x.copy() for p, x in base.items()}
    mask = {p: np.array(m) for p, m in trees.flatten(start.mask).items() if np.any(m)}
    at = {p: list(np.flatnonzero(m)) for p, m in mask.items()}
    m, v, age = ({p: {} for p in now} for _ in range(3))
    candidates, history = {}, []
    rate = optimizer.make("adam", learning_rate=3e-2).schedule(STEPS)
    for done, where in enumerate(batches(world)[1]):
        x = dataset.normalize(backbone, jnp.asarray(images[where]))
        tree = trees.nest({p: jnp.asarray(z, jnp.float32) for p, z in now.items()})
        grads = {
            p: np.asarray(g, np.float64)
            for p, g in slope(tree, x, labels[where]).items()
        }
        for path in at:
            flat, place = grads[path].reshape(-1), done % PERIOD
            if place == 0:
                count = len(at[path])
                order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))
                candidates[path] = {i: [] for i in order[:count]}
            if place < LOOKS:
                for i in candidates[path]:
                    candidates[path][i].append(flat[i])
            if place == LOOKS - 1:
                share = 1 if done < LOOKS else DROPS * (1 - (done + 1) / STEPS)
                number = int(len(at[path]) * share)
                regrow(path, number, at, now, base, candidates, m, v, age)
        for path, leaf in now.items():
            places = at[path] if path in at else range(leaf.size)
            if path not in at and not path.startswith("head/"):
                continue
            for i in places:
                g, k = grads[path].reshape(-1)[i], age[path].get(i, 0) + 1
                m[path][i] = B1 * m[path].get(i, 0) + (1 - B1) * g
                v[path][i] = B2 * v[path].get(i, 0) + (1 - B2) * g * g
                age[path][i] = k
                right = m[path][i] / (1 - B1**k), v[path][i] / (1 - B2**k)
                change = float(rate(done)) * right[0] / (np.sqrt(right[1]) + EPSILON)
                leaf.reshape(-1)[i] -= change
        history.append(
            ({p: list(x) for p, x in at.items()}, {p: x.copy() for p, x in now.items()})
        )
    return history


def regrow(path, number, at, now, base, candidates, m, v, age):
    """Drops the `number` smallest differences and grows as many candidates."""
    leaf, origin, old = now[path].reshape(-1), base[path].reshape(-1), at[path]
    order = sorted(old, key=lambda i: (-abs(leaf[i] - origin[i]), i))
    kept, dropped = order[: len(old) - number], order[len(old) - number :]
    valid = [i for i in candidates[path] if i not in kept]
    grown = sorted(valid, key=lambda i: (-abs(sum(candidates[path][i])), i))[:number]
    for i in dropped:
        if i not in grown:
            leaf[i] = origin[i]
            del m[path][i], v[path][i], age[path][i]
    for i in grown:
        if i not in dropped:
            seen = np.array(candidates[path][i])
            m[path][i] = (1 - B1 ** len(seen)) * seen.mean()
            v[path][i] = (1 - B2 ** len(seen)) * (seen**2).mean()
            age[path][i] = len(seen)
    at[path] = sorted(kept + grown)


def test_a_run_follows_the_literal_statement(world):
    selector, start = selection(world)
    history, programs = run(world, selector, start)
    assert len(programs) == 1
    changes = 0
    for state, (at, leaves) in zip(history, literal(world, start), strict=True):
        for path, where in at.items():
            np.testing.assert_array_equal(state.moving.mask[path], where, err_msg=path)
            np.testing.assert_allclose(
                state.partial[path], leaves[path], rtol=1e-4, atol=2e-5, err_msg=path
            )
            changes += where != at
    masks = [np.asarray(s.moving.mask["hidden01/dense/kernel"]) for s in history]
    moves = [i for i in range(1, STEPS) if (masks[i] != masks[i - 1]).any()]
    assert moves == [LOOKS - 1, PERIOD + LOOKS - 1, 2 * PERIOD + LOOKS - 1]


def test_state_is_of_the_size_of_what_is_selected(world):
    selector, start = selection(world)
    history, _ = run(world, selector, start)
    state = history[-1]
    count = sum(len(where) for where in state.moving.mask.values())
    head = sum(x.size for p, x in state.values.items() if p.startswith("head/"))
    size = sum(x.nbytes for x in jax.tree.leaves(state.opt_state))
    assert size <= 12 * count + 8 * head + 200  # an age and two moments each
    memory = sum(x.nbytes for x in jax.tree.leaves(state.moving.memory))
    assert memory <= 12 * count + 8


def test_what_was_never_selected_has_the_bits_of_the_base(world):
    selector, start = selection(world)
    state = run(world, selector, start)[0][-1]
    base = trees.flatten(world[1].params)
    for path, ever in state.moving.ever.items():
        leaf, old = state.partial[path], base[path]
        assert (leaf[~ever].view(np.int32) == old[~ever].view(np.int32)).all()
        now = np.zeros(old.size, bool)
        now[state.moving.mask[path]] = True
        left = ever & ~now.reshape(old.shape)
        assert left.any() and (leaf[left] == old[left]).all()  # dropped: as it was


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 2.0}, r"fraction=2.0 is outside \[0, 1\]"),
        (
            {"accumulate_steps": 0},
            "accumulate_steps=0, drop_ratio=0.5; 1 <= accumulate",
        ),
        (
            {"accumulate_steps": 9},
            "accumulate_steps=9, drop_ratio=0.5; 1 <= accumulate",
        ),
        ({"drop_ratio": 1.5}, "drop_ratio=1.5; 1 <= accumulate_steps"),
    ],
)
def test_numbers_out_of_range_are_refused(world, arguments, message):
    with pytest.raises(ValueError, match=message):
        selection(world, **arguments)


def test_a_run_of_unknown_length_is_refused(world):
    selector, _ = selection(world)
    evidence = Evidence(world[1].params, world[0].blocks, None, None)
    with pytest.raises(ValueError, match="not told how many steps"):
        selector.init(evidence)
