import json

import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.training import workdir


def record(step, split="train"):
    return {"step": step, "split": split, "loss": 1 / (step + 1)}


def test_what_is_written_is_read(tmp_path):
    with workdir.logging(tmp_path / "run", after=-1) as write:
        write({"step": 1, "split": "train", "loss": jnp.float32(0.5)})
        write({"step": np.int64(2), "split": "validation", "accuracy": np.nan})
    assert workdir.read_log(tmp_path / "run") == [
        {"step": 1, "split": "train", "loss": 0.5},
        {"step": 2, "split": "validation", "accuracy": None},
    ]


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    with workdir.logging(tmp_path, after=-1) as write:
        write(record(1))
        assert workdir.read_log(tmp_path) == [record(1)]


@pytest.mark.parametrize("killed_after", range(1, 6))
def test_a_resumed_run_has_each_record_once(tmp_path, killed_after):
    with workdir.logging(tmp_path, after=-1) as write:
        for step in range(killed_after + 1):
            write(record(step))
    with (tmp_path / workdir.LOG).open("a") as torn:
        torn.write('{"step": 6, "spl')
    saved = killed_after // 2 * 2  # a checkpoint every other step
    with workdir.logging(tmp_path, after=saved) as write:
        for step in range(saved + 1, 7):
            write(record(step))
    assert workdir.read_log(tmp_path) == [record(step) for step in range(7)]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {workdir.LOG, workdir.EVENTS}


def test_a_run_that_starts_anew_drops_everything(tmp_path):
    for _ in range(2):
        with workdir.logging(tmp_path, after=-1) as write:
            write(record(0))
    assert workdir.read_log(tmp_path) == [record(0)]


def test_a_torn_last_line_is_no_record_and_another_is_an_error(tmp_path):
    assert workdir.read_log(tmp_path) == []
    line = json.dumps(record(1))
    (tmp_path / workdir.LOG).write_text(f"{line}\n{line[:-1]}")
    assert workdir.read_log(tmp_path) == [record(1)]
    for damaged in (line[:-3], "[1]", '{"split": "train"}'):
        (tmp_path / workdir.LOG).write_text(f"{line}\n{damaged}\n{line}\n")
        with pytest.raises(ValueError, match="line 2 is no record"):
            workdir.read_log(tmp_path)


def test_tensorboard_sees_the_numbers(tmp_path):
    with workdir.logging(tmp_path, after=-1) as write:
        write(record(3) | {"method": "gps"})
    (file,) = (tmp_path / workdir.EVENTS).iterdir()
    assert b"train/loss" in file.read_bytes()
    assert b"method" not in file.read_bytes()
