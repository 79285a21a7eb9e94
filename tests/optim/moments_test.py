"""Moments under a moving mask: what each policy says, element by element."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subtune_jax.core.method import Moved, Seeds, Seen, Selector
from subtune_jax.optim import dynamic_mask, moments, optimizer
from subtune_jax.optim.dynamic_mask import Rule

B1, B2, EPSILON, RATE, DECAY = 0.9, 0.999, 1e-8, 0.1, 0.01
STEPS, SHAPE = 12, (3, 5)


def gradients():
    return np.random.default_rng(0).normal(size=(STEPS, *SHAPE))


def flags():
    """One mask a step; elements come, go, and come back."""
    return np.random.default_rng(1).random((STEPS, *SHAPE)) < 0.6


def literal(policy, grads, masks, seed=None):
    """Values after every step: AdamW with an age for each element, in loops."""
    w, m, v = np.ones(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    age, before, history = np.zeros(SHAPE, int), np.zeros(SHAPE, bool), []
    for step in range(STEPS):
        for i in np.ndindex(SHAPE):
            if not masks[step][i]:
                continue
            if not before[i] and policy != "keep":
                m[i] = v[i] = age[i] = 0
            if not before[i] and policy == "seed":
                first, second, count = seed[0][i], seed[1][i], seed[2]
                m[i], v[i] = (1 - B1**count) * first, (1 - B2**count) * second
                age[i] = count
            age[i] += 1
            m[i] = B1 * m[i] + (1 - B1) * grads[step][i]
            v[i] = B2 * v[i] + (1 - B2) * grads[step][i] ** 2
            right = m[i] / (1 - B1 ** age[i]), v[i] / (1 - B2 ** age[i])
            w[i] -= RATE * (right[0] / (np.sqrt(right[1]) + EPSILON) + DECAY * w[i])
        before = masks[step]
        history.append(w.copy())
    return np.array(history)


def transform(ages):
    """AdamW at one rate, with ages."""
    chosen = optimizer.make(learning_rate=RATE, weight_decay=DECAY, decay=".*")
    core = chosen.rule(10**9, (), ages)  # a cosine so long that it does not fall
    return core


def scripted(masks, seed=None):
    """A method that selects what `masks` says."""

    def update(seen, selection):
        mask = {"w": jnp.asarray(masks)[seen.step]}
        seeds = None
        if seed is not None:
            first, second = ({"w": jnp.asarray(x, jnp.float32)} for x in seed[:2])
            seeds = Seeds(first, second, jnp.int32(seed[2]))
        return Moved(selection._replace(mask=mask), seeds=seeds)

    return Selector(lambda evidence: None, update)


def ours(rule, grads, ages=True):
    values = {"w": jnp.ones(SHAPE)}
    begin = dynamic_mask.begin(rule, values, {}, {"w": np.False_}, None)
    state = jax.tree.map(jnp.asarray, begin)
    tx = transform(dynamic_mask.ages(rule, state) if ages else None)
    opt_state, history, leaks = tx.init(values), [], []

    @jax.jit
    def step(number, values, opt_state, state, grad):
        seen = Seen(number, values, {"w": grad})
        done = dynamic_mask.update(tx, rule, seen, opt_state, state)
        return optax.apply_updates(values, done.updates), done

    for number in range(STEPS):
        grad = jnp.asarray(grads[number], jnp.float32)
        values, done = step(jnp.int32(number), values, opt_state, state, grad)
        opt_state, state = done.opt_state, done.moving
        history.append(np.asarray(values["w"]))
        leaks.append(float(done.metrics.get("leak", 0.0)))
    assert step._cache_size() == 1
    return np.array(history), state, leaks


SEED = (np.full(SHAPE, 0.3), np.full(SHAPE, 0.5), 5)


@pytest.mark.parametrize("policy", moments.POLICIES)
def test_moments_follow_the_literal_statement_of_their_policy(policy):
    grads, masks = gradients(), flags()
    seed = SEED if policy == "seed" else None
    found, state, _ = ours(Rule(scripted(masks, seed), policy=policy), grads)
    np.testing.assert_allclose(
        found, literal(policy, grads, masks, seed), rtol=2e-5, atol=2e-6
    )
    np.testing.assert_array_equal(state.ever["w"], masks.any(0))
    np.testing.assert_array_equal(state.mask["w"], masks[-1])


def test_policies_differ():
    grads, masks = gradients(), flags()
    ends = [literal(p, grads, masks, SEED)[-1] for p in moments.POLICIES]
    assert all(np.abs(ends[i] - ends[i - 1]).max() > 1e-2 for i in range(3))


def test_nothing_outside_the_mask_moves_in_any_step():
    grads, masks = gradients(), flags()
    found, _, _ = ours(Rule(scripted(masks)), grads)
    before = np.concatenate([np.ones((1, *SHAPE), np.float32), found[:-1]])
    assert (found[~masks] == before[~masks]).all()
    assert (found[masks] != before[masks]).all()


def test_masking_the_gradient_leaks_by_as_much_as_is_reported():
    grads, masks = gradients(), flags()
    rule = Rule(scripted(masks), semantics="mask_gradient")
    found, _, leaks = ours(rule, grads, ages=False)
    w, m, v, before = np.ones(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE), np.ones(SHAPE)
    for step in range(STEPS):
        grad = np.where(masks[step], grads[step], 0)
        m, v = B1 * m + (1 - B1) * grad, B2 * v + (1 - B2) * grad**2
        right = m / (1 - B1 ** (step + 1)), v / (1 - B2 ** (step + 1))
        w = w - RATE * (right[0] / (np.sqrt(right[1]) + EPSILON) + DECAY * w)
        np.testing.assert_allclose(found[step], w, rtol=2e-5, atol=2e-6)
        leak = np.linalg.norm((w - before)[~masks[step]])
        np.testing.assert_allclose(leaks[step], leak, rtol=1e-4)
        before = w
    assert min(leaks[1:]) > 0


def test_ages_of_a_mask_that_rests_are_adams_own_count():
    params = {"a": jnp.ones((4, 3)), "b": jnp.zeros(2)}
    one = moments.aged_adam(B1, B2, EPSILON, {"a": (4, 3)})
    other = optax.scale_by_adam(B1, B2, EPSILON)
    states = one.init(params), other.init(params)
    rng = np.random.default_rng(0)
    for _ in range(5):
        grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
        first, state = one.update(grads, states[0])
        second, other_state = other.update(grads, states[1])
        states = state, other_state
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), first, second
        )
    assert states[0].age["a"].shape == (4, 3) and states[0].age["b"].shape == ()
    assert (states[0].age["a"] == 5).all()


def test_one_boolean_a_leaf_costs_one_age_a_leaf():
    def update(seen, selection):
        return Moved(selection._replace(mask={"w": seen.step % 2 == 0}))

    rule = Rule(Selector(lambda evidence: None, update), policy="reset")
    state = dynamic_mask.begin(rule, {"w": jnp.ones(SHAPE)}, {}, {"w": np.True_}, None)
    assert dynamic_mask.ages(rule, state) == {"w": ()}


def test_seeds_that_nobody_has_are_refused():
    rule = Rule(scripted(flags()), policy="seed")
    with pytest.raises(ValueError, match="seed'; this method has no candidates"):
        dynamic_mask.begin(rule, {"w": jnp.ones(SHAPE)}, {}, {"w": np.True_}, None)
