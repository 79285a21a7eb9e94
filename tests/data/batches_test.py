"""Batches: each example once an epoch, padding without weight, streams as stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.core.contracts import Split
from subtune_jax.data import augment, batches, dataset


def split(count, size=5):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % 3
    return Split(lambda index: {"image": images[index]}, labels), images


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 40),
    first=st.integers(0, 100),
    length=st.integers(1, 90),
    seed=st.integers(0, 3),
)
def test_shuffled_is_one_stream_of_permutations(count, first, length, seed):
    epochs = (first + length) // count + 1
    stream = np.concatenate(
        [np.random.default_rng([seed, e]).permutation(count) for e in range(epochs)]
    )
    part = batches.shuffled(seed, count, first, first + length)
    np.testing.assert_array_equal(part, stream[first : first + length])


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 70), multiple=st.integers(1, 9), processes=st.integers(1, 3)
)
def test_rows_pad_to_a_multiple_and_share_evenly(batch, multiple, processes):
    multiple *= processes
    shares = [batches.rows(batch, multiple, p, processes) for p in range(processes)]
    assert shares[0].padded % multiple == 0
    assert batch <= shares[0].padded < batch + multiple
    assert [s.first for s in shares[1:]] == [s.last for s in shares[:-1]]
    assert (shares[0].first, shares[-1].last) == (0, shares[0].padded)


def test_a_set_that_streams_gives_the_batches_of_one_that_is_stored():
    some, images = split(23)
    rows, mixing = batches.rows(6, 4), augment.make(flip=True, mixup=0.5)
    stored = batches.training(dataset.examples(some, 5), rows, 1, mixing)
    streamed = batches.training(dataset.examples(some, 5, limit=0), rows, 1, mixing)
    assert stored.resident["inputs"].shape == (23, 5, 5, 3)
    assert streamed.resident == {}
    pairs = zip(stored.pieces(2, 9), streamed.pieces(2, 9), strict=True)
    for here, there in pairs:
        for name, index in (("", "index"), ("partner_", "partner")):
            where = here[index]
            np.testing.assert_array_equal(images[where], there[f"{name}inputs"])
            np.testing.assert_array_equal(some.labels[where], there[f"{name}labels"])
        for name in ("weight", "drawn", "partner_drawn"):
            np.testing.assert_array_equal(here[name], there[name])
        np.testing.assert_array_equal(here["weight"], [1] * 6 + [0] * 2)


def test_processes_together_read_what_one_would():
    some = dataset.examples(split(23)[0], 5)
    drawn = augment.make(crop=0.5, cutmix=1.0)
    whole = next(batches.training(some, batches.rows(6, 4), 1, drawn).pieces(3, 4))
    halves = [
        next(batches.training(some, batches.rows(6, 4, p, 2), 1, drawn).pieces(3, 4))
        for p in range(2)
    ]
    for name, value in whole.items():
        np.testing.assert_array_equal(
            value, np.concatenate([half[name] for half in halves])
        )


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_sequential_reads_every_example_once(count):
    some, images = split(count)
    pieces = list(batches.sequential(dataset.examples(some, 5), batches.rows(4, 3)))
    inputs = np.concatenate([p["inputs"][p["weight"] > 0] for p in pieces])
    np.testing.assert_array_equal(inputs, images)


def test_images_are_resized_to_the_network():
    assert dataset.examples(split(3)[0], 8).inputs.shape == (3, 8, 8, 3)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size=4; there are 3 training"):
        batches.training(dataset.examples(split(3)[0], 5), batches.rows(4, 1), 0)


def test_a_subset_keeps_the_shares_of_the_classes():
    some = dataset.subset(split(30)[0], 9, seed=0)
    np.testing.assert_array_equal(np.bincount(some.labels), [3, 3, 3])
    assert dataset.subset(split(30)[0], 0, seed=0).labels.shape == (30,)


def texts(counts, longest):
    """Tokens `[N, longest, 2]`, so many of each text, and its labels."""
    encoded = np.zeros((len(counts), max(counts), 2), np.int32)
    for row, count in enumerate(counts):
        encoded[row, :count] = row + 1, 1
    labels = np.arange(len(counts), dtype=np.int32)
    return dataset.tokens(encoded, labels, (4, 8, longest))


def test_batches_of_texts_are_cut_to_the_least_length_that_holds_them():
    counts = [15, *[3, 2, 4, 8, 1, 7]]  # the first is what pads a batch
    some = texts(counts, 16)
    feed = batches.training(some, batches.rows(2, 4), 0)
    assert feed.resident == {}
    narrow = 0
    for step, piece in enumerate(feed.pieces(0, 6)):
        where = batches.shuffled(0, len(counts), 2 * step, 2 * step + 2)
        most = max(counts[index] for index in where)
        wide = next(length for length in (4, 8, 16) if most <= length)
        assert piece["inputs"].shape == (4, wide, 2)
        np.testing.assert_array_equal(piece["inputs"][:2], some.inputs[where][:, :wide])
        narrow += wide < 16
    assert narrow
    wides = [p["inputs"].shape[1] for p in batches.sequential(some, batches.rows(3, 4))]
    assert wides == [16, 8, 8]
