"""Profiles and searches take what `train` takes: dropout, masks, processes, ..."""

import importlib
import json
import math
import os
import socket
import subprocess
import sys

import noise
import pytest

from subtune_jax.commands import configs
from subtune_jax.subtuning import block_profile, block_search


def tiny(network, **more):
    """Settings of a small profile and search."""
    module = importlib.import_module(f"subtune_jax.backbones.{network}")
    given = {
        "task": noise.task(network, 60, 16),
        "backbone": {"name": network, **module.TINY},
        "method": {"name": "head"},
        "optimizer": {"learning_rate": 1e-2},
        "greedy": {"max_items": 1},
        "baselines": {"repeats": 1},
        "batch_size": 10,
        "train_steps": 3,
    }
    network_options = {**given["backbone"], **more.pop("backbone", {})}
    return configs.complete({**given, **more, "backbone": network_options})


KINDS = {
    "dropout": ("bert", {"backbone": {"dropout": 0.2}}),
    "averages": ("mlp", {"optimizer": {"ema": 0.9}}),
    "a rule over all arrays": ("mlp", {"optimizer": {"rgn_steps": 2}}),
    "masks": ("vit", {"task": {"name": "polyps", "examples": 60, "image_size": 16}}),
}


def ran(settings, folder):
    """The profile and the search of these settings."""
    profile = block_profile.run(settings, folder / "profile")
    search = block_search.run(settings, folder / "search")
    return json.loads(profile.read_text()), json.loads(search.read_text())


def check(profile, search):
    rows = profile["rows"]
    assert len(rows) == len({tuple(row["blocks"]) for row in rows}) > 3
    for row in rows + search["rounds"][0]["candidates"]:
        assert row["steps"] == 3 and math.isfinite(row["loss"]), row
    assert {row["name"] for row in search["final"]["rows"]} == {
        "selected", "head", "full"
    }  # fmt: skip
    assert all(math.isfinite(row["mean"]) for row in search["final"]["rows"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_and_a_search_run_with(kind, tmp_path, capsys):
    network, more = KINDS[kind]
    check(*ran(tiny(network, **more), tmp_path))
    said = "drops units: what lies below a candidate is computed in every step"
    assert (said in capsys.readouterr().err) == (kind == "dropout")


def strict(path):
    """The JSON of a file, which has no NaN."""

    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_what_diverges_is_never_the_best(tmp_path):
    diverging = {"name": "sgd", "learning_rate": 1e30}
    settings = tiny("mlp", optimizer=diverging, train_steps=6)
    content = strict(block_profile.run(settings, tmp_path / "profile"))
    assert "best" not in content
    assert all(row["loss"] is None for row in content["rows"] if row["blocks"])
    last = {"rows": ("full",), "repeats": 1, "rates": (1e30, 1.0)}
    settings = tiny("mlp", optimizer={"name": "sgd"}, baselines=last, train_steps=6)
    content = strict(block_search.run(settings, tmp_path / "search"))
    (row,) = content["final"]["rows"]
    assert row["learning_rate"] == settings["optimizer"]["learning_rate"]


TWO = """
import json, sys, jax
jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
from pathlib import Path
from subtune_jax.subtuning import block_profile, block_search
settings, folder = json.loads(sys.argv[3]), Path(sys.argv[4])
block_profile.run(settings, folder / "profile")
block_search.run(settings, folder / "search")
import subtune_jax as st
print(st.run(settings, folder / "train")["metrics"]["test"])
"""


def test_two_processes_find_what_one_finds(tmp_path):
    settings = tiny("mlp", batch_norm="trained")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    arguments = json.dumps(settings), str(tmp_path / "two")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, port, str(number), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    printed = []
    for each in runs:
        out, err = each.communicate(timeout=300)
        assert each.returncode == 0, err.decode()
        assert (b"after 3 steps" in err) == (each is runs[0])
        printed.append(out.split()[-1])
    assert printed[0] == printed[1]  # process 1 waits for the result of process 0
    one = ran(settings, tmp_path / "one")
    two = [
        json.loads((tmp_path / "two" / name / f"{name}.json").read_text())
        for name in ("profile", "search")
    ]
    check(*two)
    for a, b in zip(one[0]["rows"], two[0]["rows"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    lines = (tmp_path / "two" / "profile" / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines})
