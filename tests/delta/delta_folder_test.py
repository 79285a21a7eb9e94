"""A delta on disk is whole or refused, whatever happens to the folder."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from delta_trees import base_tree, raw, tuned_tree

from subtune_jax import delta
from subtune_jax.delta import folder


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
