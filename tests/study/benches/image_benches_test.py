"""Benchmarks on images: what they count and compare."""

from unittest import mock

import jax
import numpy as np
import pytest
import setups

from subtune_jax.study.benches import profile, pytorch, selection, sparse


@pytest.mark.parametrize(
    "network", ["mlp", pytest.param("vit", marks=pytest.mark.slow)]
)
def test_the_naive_profile_and_ours_find_the_same_values(network):
    shape = {"mlp": {"image_size": 16, "widths": (24, 24, 24)}}
    shape["vit"] = {"variant": (16, 3, 2, 8), "image_size": 16}
    setup = setups.of_images({"name": network, **shape[network]}, train_steps=6)
    slow, fast = profile.naive(setup), profile.ours(setup, False)
    assert set(slow["values"]) == set(fast["values"])
    images = len(setup.validation.labels)
    for block, value in slow["values"].items():  # of six steps: no noise to speak of
        assert abs(fast["values"][block] - value) <= 1 / images
    halved = profile.ours(setup, True)
    assert set(halved["values"]) <= set(fast["values"])
    near, far = (setup.variables.params, profile.nudged(setup).variables.params)
    for old, new in zip(jax.tree.leaves(near), jax.tree.leaves(far), strict=True):
        assert np.all(old != new)
        np.testing.assert_allclose(new, old, rtol=2e-7, atol=1e-37)
    if network == "vit":
        assert fast["programs"]["alike"] == 3
        assert fast["programs"]["last"] == 0


def test_the_ways_of_a_profile_are_compared_by_time_and_by_value(monkeypatch):
    setup = setups.of_images({"name": "mlp", "image_size": 32, "widths": (8,)})
    turns = {  # seconds, values of two blocks
        "naive": (100.0, 0.50, 0.70),
        "exact": (20.0, 0.52, 0.70),
        "halved": (8.0, 0.52, 0.60),
        "nudged": (20.0, 0.52, 0.72),
    }

    def fresh(module, settings, environment):
        seconds, first, second = turns[settings["way"]]
        return {
            "seconds": seconds, "cpu_seconds": 2 * seconds,
            "values": {"a": first, "b": second}, "best": "a" if second < 0.7 else "b",
            "programs": {"all": 9, "alike": 3, "last": 0},
        }  # fmt: skip

    monkeypatch.setattr(profile.timing, "fresh", fresh)
    figures = profile.run(setup, 2)
    assert figures["ratios"] == figures["cpu_ratios"] == {"exact": 0.2, "halved": 0.08}
    assert figures["wall_seconds"]["exact"] == [20.0, 20.0]
    assert [row["value"] for row in figures["checks"]] == pytest.approx(
        [0.2, 0.08, 0.01 / max(0.01, 0.5 / len(setup.validation.labels)), 0.18, 0]
    )


@pytest.mark.slow
def test_the_sparse_benchmark_has_every_form_and_its_costs():
    setup = setups.of_images(
        {"name": "vit", "variant": (192, 4, 3, 8, True), "image_size": 16}
    )
    some = {name: sparse.FORMS[name] for name in ("gps_k1", "array_25_percent")}
    with mock.patch.object(sparse, "FORMS", some):
        figures = sparse.run(setup, 1)
    assert set(figures["forms"]) == {"full", *some, "columns_25_percent"}
    trained = {name: row["trained"] for name, row in figures["forms"].items()}
    assert trained["gps_k1"] < trained["full"] / 50
    assert trained["columns_25_percent"] < trained["full"] / 3.9
    flops = {name: row["flops"] for name, row in figures["ratios"].items()}
    assert flops["gps_k1"] < 0.7 and flops["columns_25_percent"] < 0.8
    assert flops["array_25_percent"] > 0.9
    held = {row["what"]: row["holds"] for row in figures["checks"]}
    assert held["K=1: memory of 12 n that is not saved"]
    assert held["K=1: state by two moments"]
    for row in figures["forms"].values():
        assert row["optimizer_bytes"] == pytest.approx(8 * row["trained"], abs=16)


def test_pytorch_is_left_out_where_it_is_not():
    setup = setups.of_images({"name": "mlp", "image_size": 32, "widths": (8,)})
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=None):
        assert pytorch.run(setup, 1) == {"reason": pytorch.ABSENT, "checks": []}
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=True):
        assert pytorch.run(setup, 1) == {"reason": pytorch.UNUSUAL, "checks": []}


def test_the_selection_benchmark_compares_with_gradients_and_readings():
    setup = setups.of_images({"name": "mlp", "image_size": 32, "widths": (8,)})
    rng = np.random.default_rng(0)
    few = {"a/kernel": rng.random((4000, 30), np.float32)}
    few["b/kernel"] = rng.random((30, 30000), np.float32)
    with mock.patch.object(selection, "_drawn", return_value=few):
        figures = selection.run(setup, 1)
    assert figures["scores"] == 1_020_000
    assert len(figures["passes"]) == 3 and len(figures["checks"]) == 4
