"""masked and compact: the same updates as a slow definition, and nothing else moves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.optim.masked_updates import compact, masked

TRANSFORMS = {
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "clipped": lambda: optax.chain(
        optax.clip_by_global_norm(0.3), optax.sgd(0.1, momentum=0.9)
    ),
    "lion": lambda: optax.lion(1e-2, weight_decay=0.1),
    "accumulated": lambda: optax.MultiSteps(
        optax.adam(1e-2), 2
    ).gradient_transformation(),
}


def draw(seed):
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "b": {"kernel": rng.normal(size=(2, 2, 3))},
        "c": -np.zeros(3),
    }
    params["a"]["kernel"][0, :2] = -0.0
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def run(tx, params, steps=4, decay_seed=1):
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(steps):
        rng = np.random.default_rng([decay_seed, step])
        grads = jax.tree.map(
            lambda p, rng=rng: jnp.asarray(rng.normal(size=p.shape), jnp.float32),
            params,
        )
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@st.composite
def masks_for(draw_from, params):
    def leaf(x):
        shape = draw_from(st.sampled_from(["scalar", "full", "row"]))
        seed = draw_from(st.integers(0, 2**16))
        size = {"scalar": (), "full": x.shape, "row": x.shape[-1:]}[shape]
        return np.random.default_rng(seed).random(size) < 0.4

    return jax.tree.map(leaf, params)


def any_true(mask):
    return any(np.any(leaf) for leaf in jax.tree.leaves(mask))


def adamw_float64(params, mask, steps=4):
    """AdamW by its definition, element by element, on selected elements only."""
    out = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        out[jax.tree_util.keystr(path)] = np.array(leaf, np.float64)
    flat_masks = dict(
        (jax.tree_util.keystr(p), m)
        for p, m in jax.tree_util.tree_flatten_with_path(mask)[0]
    )
    m = {k: np.zeros_like(v) for k, v in out.items()}
    v = {k: np.zeros_like(x) for k, x in out.items()}
    for step in range(steps):
        rng = np.random.default_rng([1, step])
        for k, w in out.items():
            g = rng.normal(size=w.shape).astype(np.float32).astype(np.float64)
            m[k] = 0.9 * m[k] + 0.1 * g
            v[k] = 0.999 * v[k] + 0.001 * g**2
            hat_m, hat_v = (
                m[k] / (1 - 0.9 ** (step + 1)),
                v[k] / (1 - 0.999 ** (step + 1)),
            )
            moved = w - 1e-2 * (hat_m / (np.sqrt(hat_v) + 1e-8) + 0.1 * w)
            out[k] = np.where(flat_masks[k], moved, w)
    return out


@settings(max_examples=8, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("wrap", [masked, compact])
def test_selected_elements_follow_adamw_and_the_rest_keep_their_bits(wrap, data):
    params = draw(0)
    mask = data.draw(masks_for(params).filter(any_true))
    after = run(wrap(TRANSFORMS["adamw"](), mask), params)
    expected = adamw_float64(params, mask)
    for (path, new), old, chosen in zip(
        jax.tree_util.tree_flatten_with_path(after)[0],
        jax.tree.leaves(params),
        jax.tree.leaves(mask),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(new, expected[name], rtol=2e-5, atol=2e-6)
        still = ~np.broadcast_to(chosen, old.shape)
        np.testing.assert_array_equal(
            np.asarray(new).view(np.uint32)[still],
            np.asarray(old).view(np.uint32)[still],
        )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_compact_and_masked_make_the_same_updates(name):
    params = draw(0)
    rng = np.random.default_rng(5)
    mask = jax.tree.map(lambda x: rng.random(x.shape) < 0.5, params)
    mask["a"]["bias"] = np.True_
    mask["c"] = np.False_
    one = run(masked(TRANSFORMS[name](), mask), params)
    two = run(compact(TRANSFORMS[name](), mask), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, two)


def test_clipping_sees_the_selection_only():
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}
    mask = {"a": np.array([True, False, False, False]), "b": np.False_}
    grads = {"a": jnp.full(4, 100.0), "b": jnp.full(4, 1e6)}
    for wrap in (masked, compact):
        tx = wrap(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)), mask)
        updates, _ = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(updates["a"], [-1.0, 0, 0, 0], atol=1e-6)


def test_compact_state_is_two_moments_of_the_selected_values():
    params = {"kernel": jnp.zeros((64, 64)), "bias": jnp.zeros(64)}
    mask = {
        "kernel": np.random.default_rng(0).random((64, 64)) < 0.1,
        "bias": np.True_,
    }
    k = int(mask["kernel"].sum()) + 64
    state = compact(optax.adam(1e-3), mask).init(params)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.inner))
    assert held <= 1.05 * 2 * 4 * k
    assert jax.tree.map(np.size, state.positions) == {"kernel": k - 64}


def test_masked_holds_state_for_reached_leaves_only():
    params = {"kernel": jnp.zeros((64, 64)), "bias": jnp.zeros(64)}
    mask = {"kernel": np.False_, "bias": np.True_}
    state = masked(optax.adam(1e-3), mask).init(params)
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(state)) == 2 * 64 + 1


def test_a_new_mask_of_the_same_counts_compiles_nothing_again():
    params = {"kernel": jnp.ones((8, 8))}
    compiled = jax.jit(
        lambda grads, state: compact(optax.adam(1e-3), first).update(grads, state)
    )
    rng = np.random.default_rng(0)
    first = {"kernel": rng.permutation(64).reshape(8, 8) < 20}
    second = {"kernel": rng.permutation(64).reshape(8, 8) < 20}
    for mask in (first, second):
        state = compact(optax.adam(1e-3), mask).init(params)
        updates, _ = compiled(params, state)
        moved = np.asarray(updates["kernel"]) != 0
        np.testing.assert_array_equal(moved, mask["kernel"])
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    "tx",
    [
        optax.adafactor(1e-2),
        optax.lamb(1e-3),
        optax.lars(1e-1),
        optax.contrib.muon(1e-2),
        optax.clip_by_block_rms(1.0),
        optax.add_noise(0.1, 0.5, 0),
    ],
    ids=["adafactor", "lamb", "lars", "muon", "block_rms", "noise"],
)
def test_compact_refuses_transforms_that_depend_on_the_shape(tx):
    with pytest.raises(ValueError, match="depends on the shape"):
        compact(tx, {"w": np.True_})


def test_compact_refuses_transforms_that_want_a_loss():
    with pytest.raises(ValueError, match="pass a transform of gradients"):
        compact(optax.lbfgs(), {"w": np.True_})


def test_masked_refuses_an_empty_selection():
    with pytest.raises(ValueError, match="selects nothing"):
        masked(optax.sgd(1.0), {"w": np.False_})


def test_a_mask_of_another_tree_is_refused_by_name():
    with pytest.raises(ValueError, match="differ at .*other"):
        compact(optax.sgd(1.0), {"other": np.True_}).init({"w": jnp.ones(3)})
