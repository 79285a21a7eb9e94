"""Promises of data sets as a network takes them."""

import numpy as np
import pytest

from subtune_jax.data import dataset


def resident(count, start):
    rows = np.arange(start, start + 2 * count, dtype=np.uint8).reshape(count, 2)
    return dataset.resident(rows, np.arange(count))


@pytest.mark.parametrize(
    "where", [[0, 1, 2], [3, 4], [4, 0, 3, 2, 0], np.array([1, 4])]
)
def test_joined_examples_are_those_of_one_then_those_of_the_other(where):
    parts = resident(3, 0), resident(2, 100)
    joined = dataset.join(*parts)
    rows = np.concatenate([part.inputs for part in parts])
    np.testing.assert_array_equal(joined.read(where), rows[where])
    assert joined.read(where).dtype == np.uint8
    assert joined.labels.tolist() == [0, 1, 2, 0, 1]
    assert joined.lengths is None
    texts = [part._replace(lengths=part.labels + 1) for part in parts]
    assert dataset.join(*texts).lengths.tolist() == [1, 2, 3, 1, 2]
    assert dataset.join(parts[0], texts[1]).lengths is None


@pytest.mark.parametrize("places", [[2, 3, 4], [4, 0, 4], []])
@pytest.mark.parametrize("kept", [True, False])
def test_a_part_is_the_examples_at_its_places(places, kept):
    inputs, labels = np.arange(12.0).reshape(6, 2), np.arange(6)
    whole = dataset.resident(inputs, labels)._replace(lengths=np.arange(6) + 1)
    if not kept:
        whole = whole._replace(inputs=None)
    places = np.array(places, int)
    part = dataset.part(whole, places)
    assert part.whole is whole and (part.inputs is None) is not kept
    np.testing.assert_array_equal(part.labels, places)
    np.testing.assert_array_equal(part.lengths, places + 1)
    where = np.arange(len(places))[::-1]
    np.testing.assert_array_equal(part.read(where), inputs[places[::-1]])
    if kept:
        np.testing.assert_array_equal(part.inputs, inputs[places])


def test_a_part_that_is_a_run_is_not_copied():
    whole = dataset.resident(np.zeros((6, 2)), np.arange(6))
    run = dataset.part(whole, np.arange(2, 5)).inputs
    assert np.shares_memory(run, whole.inputs)
