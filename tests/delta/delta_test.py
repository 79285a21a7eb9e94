"""A delta restores the tuned tree bit for bit, on its own base alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from delta_trees import base_tree, raw, tuned_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subtune_jax import delta
from subtune_jax.core.contracts import Variables

DTYPES = ["float32", "bfloat16", "float16", "int32", "bool", "uint8"]


@st.composite
def pairs(draw):
    """(base, mask, tuned): random bytes, changed inside the mask only."""

    def array(dtype, shape):
        if dtype == "bool":
            return draw(hnp.arrays(bool, shape))
        width = jnp.dtype(dtype).itemsize
        bits = draw(hnp.arrays(f"u{width}", shape))
        return bits.view(jnp.dtype(dtype))

    base, mask, tuned = {}, {}, {}
    for number in range(draw(st.integers(0, 3))):
        block, dtype = f"block{number}", draw(st.sampled_from(DTYPES))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
        base[block] = {"w": array(dtype, shape)}
        mask[block] = {"w": draw(hnp.arrays(bool, shape))}
        new = np.where(mask[block]["w"], array(dtype, shape), base[block]["w"])
        tuned[block] = {"w": new}
    if draw(st.booleans()):
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
        tuned["head"] = {"w": array(draw(st.sampled_from(DTYPES)), shape)}
    return base, mask, tuned


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pairs())
def test_any_tuned_tree_comes_back_bit_for_bit(tmp_path, trees):
    base, mask, tuned = trees
    delta.save(tmp_path / "delta", base, tuned, mask=mask)
    assert raw(delta.load(tmp_path / "delta", base)) == raw(tuned)

    info = delta.info(tmp_path / "delta")
    changed = {}
    for name, new in delta.flatten(tuned).items():
        old = delta.flatten(base).get(name)
        count = sum(
            old is None or old.flat[i].tobytes() != new.flat[i].tobytes()
            for i in range(new.size)
        )
        if count or old is None:
            changed[name] = count
    assert {name: row["count"] for name, row in info["leaves"].items()} == changed


def test_minus_zero_and_the_payload_of_a_nan_are_changes(tmp_path):
    bits = np.array([0, 0x7FC00000, 0x3F800000, 5], np.uint32)
    base = {"w": np.tile(bits, 9).view(np.float32)}
    other = base["w"].view(np.uint32).copy()
    other[0], other[1] = 0x80000000, 0x7FC00001
    delta.save(tmp_path / "d", base, {"w": other.view(np.float32)})
    assert delta.info(tmp_path / "d")["count"] == 2
    loaded = delta.load(tmp_path / "d", base)["w"].view(np.uint32)
    np.testing.assert_array_equal(loaded, other)


def test_a_large_sparse_leaf_costs_four_bytes_a_value_and_two_an_index(tmp_path):
    rng = np.random.default_rng(0)
    base = {f"block{i}": {"w": np.zeros((400, 500), np.float32)} for i in range(5)}
    tuned = jax.tree.map(np.array, base)
    for block in tuned.values():
        at = rng.choice(200_000, 10_000, replace=False)
        block["w"].reshape(-1)[at] = rng.normal(size=10_000)
    delta.save(tmp_path / "d", base, tuned)
    assert delta.info(tmp_path / "d")["bytes"] <= 50_000 * 6 + 4000


def test_a_leaf_that_mostly_changed_is_held_whole(tmp_path):
    delta.save(tmp_path / "d", base_tree(), tuned_tree())
    leaves = delta.info(tmp_path / "d")["leaves"]
    assert {name: row["encoding"] for name, row in leaves.items()} == {
        "block01/kernel": "sparse",
        "block02/bias": "whole",
        "head/kernel": "new",
    }


def test_unchanged_leaves_are_the_base_itself_and_types_follow_it(tmp_path):
    delta.save(tmp_path / "d", base_tree(), tuned_tree())
    base = jax.tree.map(jnp.asarray, base_tree())
    loaded = delta.load(tmp_path / "d", base)
    assert loaded["block02"]["kernel"] is base["block02"]["kernel"]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert raw(loaded) == raw(tuned_tree())


def test_changed_leaves_stay_where_the_base_was_placed(tmp_path):
    delta.save(tmp_path / "d", base_tree(), tuned_tree())
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    loaded = delta.load(tmp_path / "d", jax.device_put(base_tree(), everywhere))
    assert {leaf.sharding for leaf in jax.tree.leaves(loaded)} == {everywhere}


def test_variables_come_back_as_variables(tmp_path):
    stats = {"block01": {"mean": np.zeros(3, np.float32)}}
    moved = {"block01": {"mean": np.array([0, 1, 0], np.float32)}}
    base, tuned = Variables(base_tree(), stats), Variables(tuned_tree(), moved)
    mask = {"block01": {"kernel": True}, "block02": {"bias": True}}
    delta.save(tmp_path / "d", base, tuned, mask=mask)
    loaded = delta.load(tmp_path / "d", base)
    assert isinstance(loaded, Variables)
    assert raw(loaded) == raw(tuned)
    as_dict = {"params": base.params, "stats": base.stats}
    assert delta.fingerprint(base) == delta.fingerprint(as_dict)


def test_keys_that_are_no_strings_come_back(tmp_path):
    base = {"layers": {0: {"w": np.zeros(3)}, 1: {"w": np.ones(3)}}}
    tuned = {"layers": {0: {"w": np.zeros(3)}, 1: {"w": np.ones(3) * 2}}}
    tuned["layers"][2] = {"w": np.ones(2)}
    delta.save(tmp_path / "d", base, tuned)
    loaded = delta.load(tmp_path / "d", base)
    assert jax.tree.structure(loaded) == jax.tree.structure(tuned)


def test_the_input_of_load_is_left_alone(tmp_path):
    base = base_tree()
    delta.save(tmp_path / "d", base, tuned_tree())
    delta.load(tmp_path / "d", base)["block01"]["kernel"][:] = 7
    assert raw(base) == raw(base_tree())


def test_an_element_that_changed_outside_the_mask_is_refused(tmp_path):
    mask = {"block01": {"kernel": np.zeros((20, 1), bool)}, "block02": {"bias": True}}
    with pytest.raises(ValueError, match="'block01/kernel' changed in 1 .* outside"):
        delta.save(tmp_path / "d", base_tree(), tuned_tree(), mask=mask)
    mask["block01"]["kernel"][3] = True
    delta.save(tmp_path / "d", base_tree(), tuned_tree(), mask=mask)
    del mask["block02"]
    with pytest.raises(ValueError, match="'block02/bias' changed, and the mask"):
        delta.save(tmp_path / "d", base_tree(), tuned_tree(), mask=mask)


def test_trees_that_do_not_fit_are_refused(tmp_path):
    tuned = tuned_tree()
    del tuned["block02"]["bias"]
    with pytest.raises(ValueError, match="no leaf 'block02/bias' in the tuned"):
        delta.save(tmp_path / "d", base_tree(), tuned)
    tuned["block02"]["bias"] = np.zeros(31, np.float32)
    with pytest.raises(ValueError, match=r"'block02/bias' is float32 \[31\]"):
        delta.save(tmp_path / "d", base_tree(), tuned)
    with pytest.raises(ValueError, match="'w' is of type list, no array"):
        delta.save(tmp_path / "d", {}, {"w": [1, 2]})
    with pytest.raises(ValueError, match="'w' is of <U1"):
        delta.save(tmp_path / "d", {}, {"w": np.array(["a"])})
    with pytest.raises(ValueError, match="two leaves have the path 'a/b'"):
        delta.fingerprint({"a": {"b": np.ones(1)}, "a/b": np.ones(1)})
    with pytest.raises(ValueError, match="meta is no JSON"):
        delta.save(tmp_path / "d", {}, {}, meta={"a": np.ones(1)})
    assert not list(tmp_path.iterdir())


def test_a_wrong_base_is_refused_by_its_first_leaf(tmp_path):
    delta.save(tmp_path / "d", base_tree(), tuned_tree())
    wrong = base_tree()
    wrong["block01"]["kernel"][0, 0] = np.nextafter(wrong["block01"]["kernel"][0, 0], 9)
    wrong["block02"]["bias"][0] = -0.0
    with pytest.raises(ValueError, match="'block01/kernel' has other content"):
        delta.load(tmp_path / "d", wrong)
    wrong["block01"] = base_tree()["block01"]
    with pytest.raises(ValueError, match="'block02/bias' has other content"):
        delta.load(tmp_path / "d", wrong)
    wrong["block02"]["bias"] = np.zeros((30, 1), np.float32)
    with pytest.raises(ValueError, match=r"'block02/bias' is float32 \[30, 1\], not"):
        delta.load(tmp_path / "d", wrong)
    del wrong["block02"]["bias"]
    with pytest.raises(ValueError, match="there is no leaf 'block02/bias'"):
        delta.load(tmp_path / "d", wrong)
    wrong = base_tree() | {"a": np.ones(1)}
    with pytest.raises(ValueError, match="'a' is not in the delta's base"):
        delta.load(tmp_path / "d", wrong)


def test_fingerprints_tell_path_type_shape_and_bits_apart():
    array = np.arange(6, dtype=np.int32)
    trees = [
        {"a": {"b": array}},
        {"a": {"c": array}},
        {"a": {"b": array.reshape(2, 3)}},
        {"a": {"b": array.view(np.float32)}},
        {"a": {"b": array + 1}},
        {"a": {"b": array, "c": array[:0]}},
    ]
    assert len({delta.fingerprint(tree) for tree in trees}) == len(trees)
    strided = {"a": {"b": np.repeat(array, 2)[::2]}, "z": {}}
    assert delta.fingerprint(strided) == delta.fingerprint(trees[0])
    assert delta.fingerprint({"a": {"b": jnp.arange(6)}}) == delta.fingerprint(trees[0])
