"""Benchmarks of texts: what they count and compare."""

import importlib.util
from unittest import mock

import jax
import numpy as np
import pytest
import setups

from subtune_jax.backbones import bert, vit
from subtune_jax.study import step_runs
from subtune_jax.study.benches import buckets, pytorch, sparse
from subtune_jax.training import evidence

LONG = 16  # tokens at most; a text of n words has n + 2
NEEDS_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def test_the_sparse_benchmark_forms_no_gradient_of_a_text_network_whole(
    reviews, caplog
):
    setup = setups.of_texts(reviews)
    selections = sparse._selections(evidence.make(setup))
    plan = step_runs.plan_of(setup, selections["gps_k1"])
    with caplog.at_level("INFO", "subtune_jax.sparse_step.interpreter"):
        one = step_runs.assemble(setup, plan, cached=False)
    assert not [each for each in caplog.messages if "formed whole" in each]
    states = {}
    step_runs.stepping(one, states, "gps_k1")()
    figures = sparse._figures(one, states["gps_k1"], [1.0])
    # One input a neuron, and its bias, of 4 x 16 + 32 + 16; the head, 16 x 2 + 2.
    assert figures["trained"] == 2 * 112 + 34
    assert figures["optimizer_bytes"] == pytest.approx(8 * figures["trained"], abs=16)


@NEEDS_TORCH
def test_a_step_of_texts_is_compared_with_pytorch(reviews):
    figures = pytorch.run(setups.of_texts(reviews), 1)
    assert set(figures["milliseconds"]) == {"full", "gps_k1", *pytorch.PAIRS.values()}
    assert [row["limit"] for row in figures["checks"]] == [0.65, 1.0]
    assert figures["shape"] == [setups.BATCH, 8, 2]
    assert figures["difference"] < 1e-6


@NEEDS_TORCH
@pytest.mark.parametrize("pooling", bert.POOLINGS)
def test_both_networks_give_padded_texts_the_same_logits(reviews, pooling):
    network = {**setups.ONE_BLOCK, "pooling": pooling}
    setup = loud(setups.of_texts(reviews, backbone=network))
    x, _ = pytorch._batch(setup)
    assert len(set(np.count_nonzero(x[..., 1], 1))) > 1  # texts differ in length
    assert pytorch._difference(setup) < 1e-5


def loud(setup):
    """With parameters far from their beginning, so that nothing hides."""
    rng = np.random.default_rng(0)
    draw = lambda x: np.asarray(rng.normal(0, 0.5, x.shape), np.float32)  # noqa: E731
    params = jax.tree.map(draw, setup.variables.params)
    return setup._replace(variables=setup.variables._replace(params=params))


@NEEDS_TORCH
def test_both_networks_give_images_the_same_logits(reviews):
    setup = setups.of_texts(
        reviews,
        task={"name": "structured", "examples": 40, "image_size": 16},
        backbone={"name": "vit", **vit.TINY, "variant": (16, 2, 2, 8, True)},
    )
    assert pytorch._difference(loud(setup)) < 1e-4


def test_without_a_network_of_its_own_pytorch_measures_nothing(reviews):
    dropping = {**setups.ONE_BLOCK, "dropout": 0.1}
    other = {"name": "sgd"}
    with mock.patch.object(pytorch.importlib.util, "find_spec", return_value=True):
        for change in ({"backbone": dropping}, {"optimizer": other}):
            figures = pytorch.run(setups.of_texts(reviews, **change), 1)
            assert figures == {"reason": pytorch.UNUSUAL, "checks": []}


def test_an_epoch_of_cut_batches_is_the_mean_of_its_lengths(reviews, cheap):
    cheap({"8": 1.0, "16": 3.0, "padded": 3.0})
    setup = setups.of_texts(reviews, batch_size=4)
    with (
        mock.patch.object(buckets, "LENGTH", LONG),
        mock.patch.object(bert, "LENGTHS", (8,)),
    ):
        figures = buckets.run(setup, 2)
        whole = buckets._prepared(setup, ())
        cut = buckets._prepared(setup, None)
    counts = {8: 0, 16: 0}
    tokens = 0
    for short, long in zip(pieces(cut), pieces(whole), strict=True):
        length = short["inputs"].shape[1]
        assert long["inputs"].shape[1] == LONG
        np.testing.assert_array_equal(long["labels"], short["labels"])
        np.testing.assert_array_equal(long["inputs"][:, :length], short["inputs"])
        assert not long["inputs"][:, length:].any()
        counts[length] += 1
        tokens += np.count_nonzero(long["inputs"][..., 1])
    assert min(counts.values()) > 0
    assert figures["batches"] == {str(n): count for n, count in counts.items()}
    assert figures["programs"] == 2
    mean = (counts[8] + 3 * counts[16]) / sum(counts.values())
    assert figures["checks"][0]["value"] == pytest.approx(mean / 3)
    places = 4 * (8 * counts[8] + 16 * counts[16]), 4 * 16 * sum(counts.values())
    assert figures["tokens"]["cut"] == pytest.approx(tokens / places[0])
    assert figures["tokens"]["padded"] == pytest.approx(tokens / places[1])


def pieces(setup):
    return buckets._feed(setup).pieces(0, len(setup.train.labels) // 4)


def test_images_have_no_lengths(reviews):
    setup = setups.of_texts(
        reviews,
        task={"name": "structured", "examples": 40, "image_size": 16},
        backbone={"name": "vit", **vit.TINY},
    )
    assert buckets.run(setup, 1) == {"reason": buckets.NO_TEXTS, "checks": []}
