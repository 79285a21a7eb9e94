"""Masks that move in an optax loop of one's own: what moves, rests, is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import subtune_jax as st
from subtune_jax.core.method import Evidence, Moved, Selection, Selector
from subtune_jax.methods import (
    badam,
    blocks,
    child_tuning_f,
    dps_dense,
    gmt,
    lisa,
    mixout,
    spiel,
)

RATE, MOMENTUM, DECAY, STEPS = 0.1, 0.9, 0.2, 9
SHAPES = {
    "below": {"kernel": (6, 4), "bias": (4,)},
    "middle": {"kernel": (4, 4)},
    "head": {"kernel": (4, 3)},
}


def drawn(seed):
    rng = np.random.default_rng(seed)
    make = lambda shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {b: {n: make(s) for n, s in of.items()} for b, of in SHAPES.items()}


def evidence(steps=STEPS):
    params = drawn(0)
    return Evidence(params, tuple(params), lambda p, b: 0.0, lambda n: [], 0, 1, steps)


def sgd():
    decays = optax.add_decayed_weights(DECAY)
    return optax.chain(optax.trace(MOMENTUM), decays, optax.scale(-RATE))


def follow(selector, tx=None, masks=None, **more):
    """Values before the first step and after every one; what moved, into `masks`."""
    tx = st.moving_masked(sgd() if tx is None else tx, selector, evidence(), **more)
    params = jax.tree.map(jnp.asarray, drawn(0))
    state, history = tx.init(params), [drawn(0)]

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for number in range(STEPS):
        params, state = step(params, state, drawn(1 + number))
        history.append(jax.tree.map(np.asarray, params))
        if masks is not None:
            masks.append({p: np.asarray(m) for p, m in state.moving.mask.items()})
    assert step._cache_size() == 1
    return history


def dps_by_hand(policy):
    """Kernels of both blocks under DPS with stages of two steps, half of each kept."""
    values = {b: drawn(0)[b]["kernel"].astype(np.float64) for b in SHAPES}
    trace = {b: np.zeros_like(x) for b, x in values.items()}
    squares, history = {}, []
    masks = {b: np.ones(x.shape, bool) for b, x in values.items()}
    before = {b: np.zeros(x.shape, bool) for b, x in values.items()}
    for step in range(STEPS):
        grads = {b: drawn(1 + step)[b]["kernel"].astype(np.float64) for b in SHAPES}
        stage, within = divmod(step, 2)
        for b, grad in grads.items():
            if stage % 2 == 0:
                squares[b] = grad**2 + (squares[b] if within else 0)
                masks[b] = np.ones(grad.shape, bool)
            elif within == 0:
                order = np.argsort(-squares[b], axis=None, kind="stable")
                masks[b] = np.zeros(grad.shape, bool)
                masks[b].flat[order[: -(-grad.size // 2)]] = True
            if policy == "reset":
                trace[b][masks[b] & ~before[b]] = 0
            here = masks[b]
            trace[b][here] = grad[here] + MOMENTUM * trace[b][here]
            values[b][here] -= RATE * (trace[b] + DECAY * values[b])[here]
            before[b] = here
        history.append({b: x.copy() for b, x in values.items()})
    return history


@pytest.mark.parametrize("policy", ["keep", "reset"])
def test_dps_in_a_loop_of_ones_own_is_the_literal_rule(policy):
    selector = dps_dense.make(drop_ratio=0.5, stage_steps=2)
    found, expected = follow(selector, policy=policy), dps_by_hand(policy)
    for ours, right in zip(found[1:], expected, strict=True):
        for block in SHAPES:
            kernel = ours[block]["kernel"]
            np.testing.assert_allclose(kernel, right[block], rtol=1e-4, atol=1e-5)


def test_a_network_of_one_block_is_its_own_head():
    params = {"dense": drawn(0)["below"]}
    given = Evidence(params, ("dense",), lambda p, b: 0.0, lambda n: [])
    tx = st.moving_masked(sgd(), dps_dense.make(drop_ratio=0.5, stage_steps=1), given)
    state = tx.init(params)
    for share in (1.0, 0.5):  # the first stage trains all
        updates, state = tx.update({"dense": drawn(1)["below"]}, state, params)
        assert np.mean(state.moving.mask["dense/kernel"]) == share
        assert np.all(updates["dense"]["bias"])


def test_policies_differ():
    ends = [dps_by_hand(policy)[-1]["below"] for policy in ("keep", "reset")]
    assert np.abs(ends[0] - ends[1]).max() > 1e-2


def scripted(flags):
    """A method of someone's own: of the kernel below what `flags` [steps, ...] say."""
    path = "below/kernel"

    def init(given):
        mask = st.masks.from_regex(given.params, path)
        return Selection(mask, reach=mask)

    def update(seen, selection):
        return Moved(selection._replace(mask={path: jnp.asarray(flags)[seen.step]}))

    return Selector(init, update)


@pytest.mark.parametrize("name", ["adamw", "clipped", "injected", "lion"])
def test_nothing_outside_the_mask_moves_whatever_the_optimizer(name):
    tx = {
        "adamw": optax.adamw(0.1, weight_decay=0.5),
        "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1)),
        "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=0.1),
        "lion": optax.lion(0.1, weight_decay=0.5),
    }[name]
    flags = np.random.default_rng(7).random((STEPS, 6, 4)) < 0.5
    found = follow(scripted(flags), tx)
    for before, after, here in zip(found, found[1:], flags, strict=False):
        old, new = before["below"]["kernel"], after["below"]["kernel"]
        assert (old[~here] == new[~here]).all() and (old[here] != new[here]).all()
        np.testing.assert_array_equal(before["below"]["bias"], after["below"]["bias"])
        assert (before["head"]["kernel"] != after["head"]["kernel"]).all()


@pytest.mark.parametrize(
    "selector",
    [
        child_tuning_f.make(pattern=".*"),
        gmt.make(),
        lisa.make(count=1, period_steps=2, pattern="below|middle"),
        badam.make(period_steps=2, pattern="below|middle"),
    ],
    ids=["child_tuning_f", "gmt", "lisa", "badam"],
)
def test_every_method_of_whole_leaves_moves_its_mask_and_no_more(selector):
    masks = []
    found = follow(selector, optax.adam(0.1), masks)
    for before, after, mask in zip(found, found[1:], masks, strict=False):
        for block in ("below", "middle"):
            kernel = SHAPES[block]["kernel"]
            here = np.broadcast_to(mask[f"{block}/kernel"], kernel)
            changed = before[block]["kernel"] != after[block]["kernel"]
            np.testing.assert_array_equal(changed, here)
        assert (before["head"]["kernel"] != after["head"]["kernel"]).all()
    kernels = [np.broadcast_to(m["below/kernel"], (6, 4)) for m in masks]
    assert any((one != other).any() for one, other in itertools.pairwise(kernels))


@pytest.mark.parametrize(
    "selector, message",
    [
        (blocks.make(names=("below",)), "whose mask stays; use masked(tx, mask)"),
        (spiel.make(fraction=0.2), "moves positions"),
        (gmt.make(compact=True), "moves positions"),
        (mixout.make(), "changes the loss"),
    ],
    ids=["blocks", "spiel", "gmt compact", "mixout"],
)
def test_what_it_cannot_follow_is_told(selector, message):
    with pytest.raises(ValueError, match="moving_masked was given") as told:
        st.moving_masked(sgd(), selector, evidence())
    assert message in str(told.value)


def test_a_wrong_policy_and_missing_params_are_told():
    with pytest.raises(ValueError, match="there are keep, reset"):
        st.moving_masked(sgd(), gmt.make(), evidence(), policy="seed")
    tx = st.moving_masked(sgd(), gmt.make(), evidence())
    with pytest.raises(ValueError, match="no params"):
        tx.update(drawn(1), tx.init(drawn(0)))
