"""The figures of the data sets that `subtune fetch` brings, where they are here."""

import functools
import re

import numpy as np
import pytest

from subtune_jax import fetch
from subtune_jax.core import registry
from subtune_jax.data import images, text_tasks
from subtune_jax.tasks import openclipart

SIZES = {  # in the three parts together, and all that there are
    "elpv": (2624, 2),
    "emoji": (1892, 9),
    "fashion_mnist": (70_000, 10),
    "openclipart": (788, 8),
    "mnist5k": (5000, 10),
    "movie_sentiment": (10_566, 2),
    "reuters_r8": (7604, 8),
    "newsgroups20": (18_790, 20),
}
DISTINCT = ("elpv", "emoji", "openclipart", "movie_sentiment")  # have nothing twice
MOST = 3000  # images read of one split


@functools.cache
def task_of(name):
    if fetch.cached(name) is None:
        pytest.skip(f"{name} is not here; `subtune fetch {name}`")
    return registry.load("tasks", {"name": name})


def parts(task):
    return task.train, task.validation, task.test


def content(example):
    image = example.get("image")
    return text_tasks.content(example) if image is None else images.digest(image)


@pytest.mark.parametrize("name", SIZES)
def test_the_data_set_is_whole(name):
    task = task_of(name)
    total = sum(len(split.labels) for split in parts(task))
    assert (total, len(task.classes)) == SIZES[name]
    for split in parts(task):
        assert set(split.labels.tolist()) == set(range(len(task.classes)))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "elpv" else [])
        for name in SIZES
    ],
)
def test_no_example_is_in_two_parts(name):
    contents, read = [], 0
    for split in parts(task_of(name)):
        count = min(MOST, len(split.labels))
        count = len(split.labels) if "text" in split.read(0) else count
        read += count
        contents.append({content(split.read(index)) for index in range(count)})
    for number, here in enumerate(contents):
        for there in contents[:number]:
            assert not here & there
    if name in DISTINCT:
        assert sum(map(len, contents)) == read


def test_the_digits_of_scikit_learn_are_all_there():
    pytest.importorskip("sklearn")
    task = registry.load("tasks", {"name": "digits"})
    assert sum(len(split.labels) for split in parts(task)) == 1797


def test_elpv_calls_a_cell_defective_from_one_half_on():
    task = task_of("elpv")
    counts = sum(np.bincount(split.labels) for split in parts(task))
    table = (fetch.cached("elpv") / "labels.csv").read_text().split()
    assert counts[1] == sum(float(value) > 0.5 for value in table[1::3])
    assert task.train.read(0)["image"].shape == (300, 300, 3)


def test_openclipart_keeps_numbered_drawings_together():
    task_of("openclipart")  # skips where it is not here
    files, _ = openclipart._distinct(fetch.cached("openclipart"))
    homes = [file for file in files if re.fullmatch(r"home\d+", file.stem)]
    assert {openclipart._stem(file) for file in homes} == {"home"}
    assert len(homes) == 16


def test_fashion_mnist_keeps_the_official_test_split():
    task = task_of("fashion_mnist")
    assert [len(split.labels) for split in parts(task)] == [54_000, 6_000, 10_000]
    assert task.test.labels[:5].tolist() == [9, 2, 1, 1, 6]  # as published
