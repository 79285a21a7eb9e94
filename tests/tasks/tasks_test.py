"""What every file of tasks/ promises, and the figures of each."""

import functools
import importlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from subtune_jax import fetch
from subtune_jax.core import losses, registry
from subtune_jax.data import dense, images, text_tasks
from subtune_jax.fetch.assets import ASSETS
from subtune_jax.tasks import openclipart

ALL = registry.plugins("tasks")
PREPARED = {
    "tfds",
    "tfds_masks",
    "vtab",
    "fgvc",
    "glue",
    "transfer",
}  # need a data set that TFDS prepared: a mock here
DISTINCT = {"elpv", "emoji", "openclipart", "movie_sentiment"}  # have nothing twice
MOST = 3000  # images read of one split
TEXTS = {
    "glue",
    "movie_sentiment",
    "newsgroups20",
    "reuters_r8",
    "text_file",
    "transfer",
}
REGRESSIONS = [
    ("glue", {"dataset": "stsb", "validation_examples": 2}),
    ("movie_sentiment", {"regression": True}),
]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Your own images in folders: 12 and 4 of each of two kinds, and with masks."""
    root, rng = tmp_path_factory.mktemp("flowers"), np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for kind in ("rose", "tulip"):
            (root / part / kind).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8))
                image.save(root / part / kind / f"{number}.png")
        for number in range(count):
            for what, most in (("images", 256), ("masks", 2)):
                (root / "masked" / part / what).mkdir(parents=True, exist_ok=True)
                pixels = Image.fromarray(rng.integers(0, most, (5, 4), np.uint8))
                pixels.save(root / "masked" / part / what / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def sayings(tmp_path_factory):
    """Your own texts in a file: 20 of each of two kinds."""
    file = tmp_path_factory.mktemp("sayings") / "sayings.tsv"
    rows = [
        f"saying {number}\t{'wise' if number % 2 else 'dull'}" for number in range(40)
    ]
    file.write_text("\n".join(["text\tlabel", *rows]))
    return file


@pytest.fixture(scope="module")
def make(flowers, sayings):
    def load(name, **more):
        if name in ASSETS and fetch.cached(name) is None:
            pytest.skip(f"{name} is not here; `subtune fetch {name}`")
        if name == "digits":
            pytest.importorskip("sklearn")
        module = importlib.import_module(f"subtune_jax.tasks.{name}")
        own = {"folder": flowers, "folder_masks": flowers / "masked"}
        own["text_file"] = sayings
        arguments = {"path": str(own[name])} if name in own else {}
        arguments |= getattr(module, "TINY", {}) | more
        with tfds.testing.mock_data(num_examples=8):
            return registry.load("tasks", {"name": name, **arguments})

    return load


@pytest.fixture(scope="module")
def task_of(make):
    return functools.cache(make)


def parts(task):
    return task.train, task.validation, task.test


@pytest.mark.parametrize("name", ALL)
def test_the_parts_have_examples_of_every_class_and_no_other(name, task_of):
    task = task_of(name)
    assert task.name == name and not task.regression
    assert len(set(task.classes)) == len(task.classes) > 1
    for split in parts(task):
        assert split.labels.dtype == np.int32 and split.labels.ndim == 1
        assert 0 <= split.labels.min() <= split.labels.max() < len(task.classes)
        assert (split.mask is not None) == task.dense
        if name not in PREPARED:
            found = map(split.mask or split.labels.item, range(len(split.labels)))
            classes = set(np.concatenate([np.ravel(each) for each in found]))
            assert classes - {dense.IGNORED} == set(range(len(task.classes)))


@pytest.mark.parametrize("name, arguments", REGRESSIONS)
def test_a_regression_has_finite_numbers_and_one_name(name, arguments, make):
    task = make(name, **arguments)
    assert task.name == name and task.regression
    assert len(task.classes) == 1 and task.loss is losses.squared
    for split in parts(task):
        assert split.labels.dtype == np.float32 and split.labels.ndim == 1
        assert np.isfinite(split.labels).all() and len(set(split.labels.tolist())) > 1


@pytest.mark.parametrize("name", ALL)
def test_the_same_arguments_make_the_same_task(name, task_of, make):
    for one, two in zip(parts(task_of(name)), parts(make(name)), strict=True):
        np.testing.assert_array_equal(one.labels, two.labels)
        for index in (0, len(one.labels) - 1, 0):
            first, second = one.read(index), two.read(index)
            assert first.keys() == second.keys()
            for key in first:
                np.testing.assert_array_equal(first[key], second[key])


def content(name, example):
    """What identifies a good example: the pixels of an image, or all its texts."""
    if name in TEXTS:
        assert list(example) in (["text"], ["text", "pair"])
        for text in example.values():
            assert type(text) is str and text.encode("utf-8").decode("utf-8") == text
        return text_tasks.content(example)
    image = example["image"]
    assert list(example) == ["image"]
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return images.digest(image)


@pytest.mark.parametrize("name", ALL)
def test_images_are_colour_texts_are_strings_and_in_one_part_only(name, task_of):
    found, read = [], 0
    for split in parts(task_of(name)):
        count = len(split.labels) if name in TEXTS else min(MOST, len(split.labels))
        read += count
        found.append({content(name, split.read(index)) for index in range(count)})
    if name in PREPARED:
        return  # the mock hands out the same examples for any slice
    for one in range(3):
        for other in range(one):
            assert not found[one] & found[other]
    if name in DISTINCT:
        assert sum(map(len, found)) == read


SIZES = {  # in the three parts together, and all that there are
    "elpv": (2624, 2),
    "emoji": (1892, 9),
    "fashion_mnist": (70_000, 10),
    "openclipart": (788, 8),
    "mnist5k": (5000, 10),
    "digits": (1797, 10),
    "movie_sentiment": (10_566, 2),
    "reuters_r8": (7604, 8),
    "newsgroups20": (18_790, 20),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_data_set_is_whole(name, task_of):
    task = task_of(name)
    total = sum(len(split.labels) for split in parts(task))
    assert (total, len(task.classes)) == SIZES[name]


def test_elpv_calls_a_cell_defective_from_one_half_on(task_of):
    task = task_of("elpv")
    counts = sum(np.bincount(split.labels) for split in parts(task))
    table = (fetch.cached("elpv") / "labels.csv").read_text().split()
    assert counts[1] == sum(float(value) > 0.5 for value in table[1::3])
    assert task.train.read(0)["image"].shape == (300, 300, 3)


def test_openclipart_keeps_numbered_drawings_together(task_of):
    task_of("openclipart")  # skips where it is not here
    files, _ = openclipart._distinct(fetch.cached("openclipart"))
    homes = [file for file in files if re.fullmatch(r"home\d+", file.stem)]
    assert {openclipart._stem(file) for file in homes} == {"home"}
    assert len(homes) == 16


def test_fashion_mnist_keeps_the_official_test_split(task_of):
    task = task_of("fashion_mnist")
    assert [len(split.labels) for split in parts(task)] == [54_000, 6_000, 10_000]
    assert task.test.labels[:5].tolist() == [9, 2, 1, 1, 6]  # as published
