import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subtune_jax import delta
from subtune_jax.core.contracts import Variables
from subtune_jax.delta import folder

DTYPES = ["float32", "bfloat16", "float16", "int32", "bool", "uint8"]


def base_tree():
    rng = np.random.default_rng(0)
    return {
        "block01": {"kernel": rng.normal(size=(20, 30)).astype(np.float32)},
        "block02": {
            "kernel": rng.normal(size=(20, 30)).astype(ml_dtypes.bfloat16),
            "bias": np.zeros(30, np.float32),
            "count": np.int32(3),
        },
    }


def tuned_tree():
    tree = jax.tree.map(np.array, base_tree())
    tree["block01"]["kernel"][3, 4] += 1
    tree["block02"]["bias"] += 1
    tree["head"] = {"kernel": np.ones((30, 2), np.float32)}
    return tree


def raw(tree):
    return {
        name: (array.dtype, array.shape, array.tobytes())
        for name, array in delta.flatten(tree).items()
    }


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


def test_any_damage_is_one_clear_error(tmp_path):
    source = delta.save(tmp_path / "d", base_tree(), tuned_tree(), meta={"a": "b"})
    for file in sorted(f for f in source.rglob("*") if f.is_file()):
        content = file.read_bytes()
        for damaged in {b"", content[: len(content) // 2], _flip(content), None}:
            if damaged == content:
                continue
            copy = tmp_path / "copy"
            shutil.copytree(source, copy)
            target = copy / file.relative_to(source)
            target.unlink() if damaged is None else target.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged|no manifest") as caught:
                delta.load(copy, base_tree())
            assert "\n" not in str(caught.value)
            shutil.rmtree(copy)


def _flip(content):
    changed = bytearray(content)
    for at in range(len(changed) // 3, len(changed), 7):
        changed[at] ^= 0x55
    return bytes(changed)


def test_what_is_no_delta_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no delta at"):
        delta.load(tmp_path / "none", {})
    with pytest.raises(ValueError, match="no delta at .* no manifest.json"):
        delta.info(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99, "digest": ""}')
    with pytest.raises(ValueError, match="has format 99; this reads 1"):
        delta.info(tmp_path)


def test_save_replaces_a_delta_and_nothing_else(tmp_path):
    path = delta.save(tmp_path / "runs" / "d", base_tree(), base_tree())
    assert raw(delta.load(path, base_tree())) == raw(base_tree())
    delta.save(path, base_tree(), tuned_tree(), meta=[1])
    assert raw(delta.load(path, base_tree())) == raw(tuned_tree())
    assert delta.info(path)["meta"] == [1]
    assert len(list(path.iterdir())) == 2 and len(list(path.parent.iterdir())) == 1

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="is no delta; it is left alone"):
        delta.save(tmp_path / "mine", base_tree(), tuned_tree())
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("call", ["rename", "replace"])
def test_a_save_that_is_killed_leaves_the_old_delta(tmp_path, monkeypatch, call):
    path = delta.save(tmp_path / "d", base_tree(), base_tree(), meta="old")

    def killed(*args):
        raise KeyboardInterrupt

    owner = Path if call == "rename" else folder.os
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, killed)
        with pytest.raises(KeyboardInterrupt):
            delta.save(path, base_tree(), tuned_tree(), meta="new")
    assert delta.info(path)["meta"] == "old"
    delta.save(path, base_tree(), tuned_tree(), meta="new")
    assert raw(delta.load(path, base_tree())) == raw(tuned_tree())
    assert len(list(path.iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1


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


def test_an_edited_manifest_is_damage(tmp_path):
    path = delta.save(tmp_path / "d", base_tree(), tuned_tree(), meta={"seed": 1})
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"seed": 1', '"seed": 2'))
    with pytest.raises(ValueError, match="manifest.json is not intact"):
        delta.info(path)


def test_the_manifest_is_json_with_the_fingerprints(tmp_path):
    path = delta.save(tmp_path / "d", base_tree(), tuned_tree(), meta={"seed": 1})
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["base_fingerprint"] == delta.fingerprint(base_tree())
    assert manifest["result_fingerprint"] == delta.fingerprint(tuned_tree())
    assert manifest["changed"]["block01/kernel"] == 1
    assert manifest["meta"] == {"seed": 1} and "jax" in manifest["versions"]


TWO = """
import sys, jax, numpy as np
jax.distributed.initialize("localhost:" + sys.argv[2], 2, int(sys.argv[3]))
from subtune_jax import delta
base, tuned = {"w": np.zeros(9)}, {"w": np.arange(9.0)}
delta.save(sys.argv[1], base, tuned)
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("saved")
np.testing.assert_array_equal(delta.load(sys.argv[1], base)["w"], tuned["w"])
if jax.process_index():  # one process may read alone
    delta.info(sys.argv[1])
multihost_utils.sync_global_devices("read")
"""


def test_two_processes_write_one_delta_and_both_read_it(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(tmp_path / "d"), port, str(number)],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    try:
        errors = [run.communicate(timeout=60)[1].decode()[-2000:] for run in runs]
    except subprocess.TimeoutExpired:
        errors = [run.kill() or run.communicate()[1].decode()[-2000:] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
