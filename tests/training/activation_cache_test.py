"""What enters a block: computed once, kept within bounds, read as single batches."""

import noise
import numpy as np
import pytest
from small_trials import STEPS, opened, small, trained

from subtune_jax.data import dataset
from subtune_jax.subtuning import trials
from subtune_jax.training import activation_cache


def test_what_enters_a_block_is_computed_once_for_all_seeds_and_folds():
    setup = small("vit", validation_examples=14)
    testbed = opened(setup, folds=2, seeds=2)
    cache, calls = testbed.trainer.trunk.cache, []

    def counted(examples, start, stop):
        for rows in cache.forward(examples, start, stop):
            calls.append((stop, len(rows)))
            yield rows

    trunk = testbed.trainer.trunk._replace(cache=cache._replace(forward=counted))
    testbed = testbed._replace(trainer=testbed.trainer._replace(trunk=trunk))
    for number in range(4):
        trials.value(testbed, trials.candidate(testbed, ["block02"]), number, STEPS)
    count = len(setup.train.labels) + len(setup.validation.labels)
    for block in ("head", "block02"):  # the linear probes' features, the candidate's
        assert sum(rows for stop, rows in calls if stop == block) == count


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_bounds_of_memory_and_disk_change_nothing_but_the_place(bounds, tmp_path):
    memory, disk = bounds
    setup = small("vit")
    options = trials.make(memory_gib=memory, disk_gib=disk)
    testbed = trials.prepare(setup, options, tmp_path)
    _, logits = trained(testbed, trials.candidate(testbed, ["block02"]))
    kept = testbed.trainer.trunk.cache.kept
    _, expected = trained(opened(setup), trials.candidate(testbed, ["block02"]))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    if not memory and not disk:
        assert not kept
        return
    assert {"block02", "head"} <= {block for _, block in kept}
    assert all(isinstance(x, np.memmap) == (not memory) for x in kept.values())
    assert bool(list(tmp_path.glob("*/*"))) == (not memory)


def test_a_bound_of_memory_is_kept():
    setup = small("vit")
    testbed = opened(setup)
    trained(testbed, trials.candidate(testbed, ["block01"]))
    first = testbed.trainer.trunk.cache.kept[0, "block01"].nbytes
    testbed = trials.prepare(setup, trials.make(memory_gib=1.5 * first / (1 << 30)))
    for block in ("block01", "block02", "norm"):
        trained(testbed, trials.candidate(testbed, [block]))
    kept = testbed.trainer.trunk.cache.kept.values()
    assert sum(x.nbytes for x in kept if not isinstance(x, np.memmap)) <= 1.5 * first
    assert any(isinstance(x, np.memmap) for x in kept)


@pytest.mark.parametrize("devices_", [1, 8])
def test_what_enters_a_block_is_what_the_network_puts_out(devices_):
    setup = small(devices_=devices_)
    cache = opened(setup).trainer.trunk.cache
    part = dataset.part(setup.train, np.array([3, 1, 50]))
    source, entered = activation_cache.entering(cache, part, "hidden02")
    assert source == "hidden02" and entered.inputs.shape[0] == 3
    images = dataset.enter(setup.backbone, part.read(np.arange(3)), np.float32)
    expected, _ = setup.backbone.apply(*setup.variables, images, stop="hidden02")
    np.testing.assert_allclose(entered.inputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(entered.read(np.arange(3)), entered.inputs)
    np.testing.assert_array_equal(entered.labels, setup.train.labels[[3, 1, 50]])


def test_without_room_what_enters_is_the_examples_or_the_nearest_that_is_kept():
    setup = small("vit")
    cache = opened(setup).trainer.trunk.cache
    small_cache = cache._replace(bounds=(0, 0))
    source, entered = activation_cache.entering(small_cache, setup.train, "block02")
    assert source is None and entered is setup.train
    assert activation_cache.entering(cache, setup.train, "block01")[0] == "block01"
    source, _ = activation_cache.entering(small_cache, setup.train, "block02")
    assert source == "block01"


def test_texts_are_read_no_longer_than_the_longest_of_them():
    backbone = noise.network("bert")
    few = backbone.encode([{"text": "a b"}, {"text": "a"}])
    parts = [dataset.tokens(few[i : i + 1], np.arange(1), (4, 5, 8)) for i in (0, 1)]
    both = dataset.join(*parts)
    assert both.read(np.array([1, 0])).shape == (2, 8, 2)
    cut = dataset.cut(both).read(np.array([1, 0]))
    assert cut.shape == (2, 4, 2)
    np.testing.assert_array_equal(cut[:, : few.shape[1]], few[::-1])


def test_what_is_forgotten_makes_room_and_leaves_its_readers_alone(tmp_path):
    setup = small("vit")
    options = trials.make(memory_gib=0.0)
    cache = trials.prepare(setup, options, tmp_path).trainer.trunk.cache
    _, before = activation_cache.entering(cache, setup.train, "block02")
    expected = before.read(np.arange(5)).copy()
    activation_cache.forget(cache)
    assert not cache.kept and not list(tmp_path.glob("*/*"))
    _, after = activation_cache.entering(cache, setup.validation, "block02")
    np.testing.assert_array_equal(before.read(np.arange(5)), expected)
    assert not np.array_equal(after.read(np.arange(5)), expected)
