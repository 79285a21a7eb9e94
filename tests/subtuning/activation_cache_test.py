"""What enters a block: computed once, kept within bounds, read as single batches."""

import noise
import numpy as np
import pytest
from small_trials import STEPS, opened, small, trained

from subtune_jax.data import dataset
from subtune_jax.subtuning import activation_cache, block_programs, trials


def test_what_enters_a_block_is_computed_once_for_all_seeds_and_folds(monkeypatch):
    setup = small("vit", validation_examples=14)
    testbed = opened(setup, folds=2, seeds=2)
    base, call, calls = testbed.trainer.cache.base, block_programs.call, []

    def counted(programs, key, function, *given, **options):
        if key[0] == "forward":
            own, x = given
            calls.extend(len(x) * [b for b in base if base[b] is own])
        return call(programs, key, function, *given, **options)

    monkeypatch.setattr(block_programs, "call", counted)
    for number in range(4):
        trials.value(testbed, trials.candidate(testbed, ["block02"]), number, STEPS)
    count = len(setup.train.labels) + len(setup.validation.labels)
    rows = -(-count // 12) * 12  # of whole batches
    assert calls.count("embed") == rows
    # Features for the linear probes come from what enters block02, once more each.
    assert calls.count("block01") == rows


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_bounds_of_memory_and_disk_change_nothing_but_the_place(bounds, tmp_path):
    memory, disk = bounds
    setup = small("vit")
    options = trials.make(memory_gib=memory, disk_gib=disk)
    testbed = trials.prepare(setup, options, tmp_path)
    _, logits = trained(testbed, trials.candidate(testbed, ["block02"]))
    kept = testbed.trainer.cache.kept
    _, expected = trained(opened(setup), trials.candidate(testbed, ["block02"]))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    if not memory and not disk:
        assert not kept
        return
    assert {"block02", "head"} <= set(kept)
    assert all(isinstance(x, np.memmap) == (not memory) for x in kept.values())
    assert bool(list(tmp_path.glob("*/*"))) == (not memory)


def test_a_bound_of_memory_is_kept():
    setup = small("vit")
    testbed = opened(setup)
    trained(testbed, trials.candidate(testbed, ["block01"]))
    first = testbed.trainer.cache.kept["block01"].nbytes
    testbed = trials.prepare(setup, trials.make(memory_gib=1.5 * first / (1 << 30)))
    for block in ("block01", "block02", "norm"):
        trained(testbed, trials.candidate(testbed, [block]))
    kept = testbed.trainer.cache.kept.values()
    assert sum(x.nbytes for x in kept if not isinstance(x, np.memmap)) <= 1.5 * first
    assert any(isinstance(x, np.memmap) for x in kept)


@pytest.mark.parametrize("devices_", [1, 8])
def test_what_is_read_in_bulk_is_what_single_batches_give(devices_):
    cache = opened(small(devices_=devices_)).trainer.cache
    size, everything = cache.rows.batch_size, np.arange(67)
    parts = [*activation_cache.portions(cache, everything)]
    assert [len(part) for part in parts] == [
        activation_cache.BULK * size,
        size,
        67 - 5 * size,
    ]
    np.testing.assert_array_equal(np.concatenate(parts), everything)
    first = parts[0]
    bulk = activation_cache.read(cache, "hidden02", first)[: len(first)]
    single = [
        activation_cache.read(cache, "hidden02", first[begin : begin + size])[:size]
        for begin in range(0, len(first), size)
    ]
    np.testing.assert_allclose(bulk, np.concatenate(single), rtol=1e-5, atol=1e-6)


def test_texts_are_read_no_longer_than_the_longest_of_them():
    backbone = noise.network("bert")
    few = backbone.encode([{"text": "a b"}, {"text": "a"}])
    parts = [dataset.tokens(few[i : i + 1], np.arange(1), (4, 5, 8)) for i in (0, 1)]
    both = dataset.join(*parts)
    assert both.read(np.array([1, 0])).shape == (2, 8, 2)
    cut = activation_cache.cut(both).read(np.array([1, 0]))
    assert cut.shape == (2, 4, 2)
    np.testing.assert_array_equal(cut[:, : few.shape[1]], few[::-1])
