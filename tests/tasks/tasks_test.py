"""What every file of tasks/ promises, in its smallest form and on its own sample."""

import functools
import importlib

import numpy as np
import prepared
import pytest

from subtune_jax import fetch
from subtune_jax.core import losses, registry
from subtune_jax.data import dense, images, text_tasks

ALL = registry.plugins("tasks")
REGRESSIONS = [
    name
    for name in ALL
    if "regression" in registry.arguments(registry.maker("tasks", name))
]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Name -> the task of its `TINY`, which finds its files in a folder of its own.

    Where it would fetch an asset it is given the files that its `write_sample` wrote,
    and of TFDS a data set that is made up.
    """
    folders = {}

    def sample(module, name):
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            write = getattr(module, "write_sample", lambda folder: {})
            folders[name] = folder, write(folder)
        return folders[name]

    def load(name, **more):
        module = importlib.import_module(f"subtune_jax.tasks.{name}")
        folder, arguments = sample(module, name)
        with pytest.MonkeyPatch.context() as patch, prepared.mock():
            patch.setattr(fetch, "path", lambda asset: folder)
            try:
                return module.make(**module.TINY, **arguments, **more)
            except ValueError as error:
                if isinstance(error.__cause__, ModuleNotFoundError):
                    pytest.skip(str(error))
                raise

    return load


@pytest.fixture(scope="module")
def task_of(make):
    return functools.cache(make)


def parts(task):
    return task.train, task.validation, task.test


def content(example):
    """What identifies a good example: the pixels of an image, or all its texts."""
    if "image" not in example:
        assert list(example) in (["text"], ["text", "pair"])
        for text in example.values():
            assert type(text) is str and text.encode("utf-8").decode("utf-8") == text
        return text_tasks.content(example)
    image = example["image"]
    assert list(example) == ["image"]
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return images.digest(image)


@pytest.mark.parametrize("name", ALL)
def test_the_parts_have_examples_of_every_class_and_no_other(name, task_of):
    task = task_of(name)
    assert task.name == name and not task.regression
    assert len(set(task.classes)) == len(task.classes) > 1
    for split in parts(task):
        assert split.labels.dtype == np.int32 and split.labels.ndim == 1
        assert (split.mask is not None) == task.dense
        labels = [split.labels]
        if task.dense:
            labels = [split.mask(index).ravel() for index in range(len(split.labels))]
        classes = set(np.concatenate(labels).tolist())
        assert classes - {dense.IGNORED} == set(range(len(task.classes)))


@pytest.mark.parametrize("name", ALL)
def test_a_mask_is_as_large_as_its_image(name, task_of):
    task = task_of(name)
    for split in parts(task) if task.dense else ():
        for index in range(len(split.labels)):
            mask = split.mask(index)
            assert mask.dtype == np.uint8
            assert mask.shape == split.read(index)["image"].shape[:2]


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_has_finite_numbers_and_one_name(name, make):
    task = make(name, regression=True)
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


@pytest.mark.parametrize("name", ALL)
def test_images_are_colour_texts_are_strings_and_in_one_part_only(name, task_of):
    contents = [
        {content(split.read(index)) for index in range(len(split.labels))}
        for split in parts(task_of(name))
    ]
    for number, here in enumerate(contents):
        for there in contents[:number]:
            assert not here & there
