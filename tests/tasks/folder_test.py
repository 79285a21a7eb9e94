"""Your own images in folders."""

import numpy as np
import pytest
from PIL import Image

from subtune_jax.core import registry
from subtune_jax.data import images


def write(root, layout):
    """Folders of small images, all different: {"train/rose": count}."""
    rng = np.random.default_rng(0)
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (5, 4 + number % 3, 3), np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


LAYOUT = {"train/rose": 12, "train/tulip": 20, "test/rose": 3, "test/tulip": 5}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return write(tmp_path_factory.mktemp("flowers"), LAYOUT)


def parts(task):
    return task.train, task.validation, task.test


def folder(path, **arguments):
    return registry.load("tasks", {"name": "folder", "path": str(path), **arguments})


def test_folder_cuts_validation_from_training(flowers):
    task = folder(flowers, validation=0.25)
    assert task.classes == ("rose", "tulip")
    assert [np.bincount(split.labels).tolist() for split in parts(task)] == [
        [9, 15],
        [3, 5],
        [3, 5],
    ]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folder_takes_the_validation_that_is_there(tmp_path, name):
    task = folder(write(tmp_path, LAYOUT | {f"{name}/tulip": 4}))
    assert np.bincount(task.train.labels).tolist() == [12, 20]
    assert task.validation.labels.tolist() == [1] * 4
    np.testing.assert_array_equal(
        task.validation.read(0)["image"], images.read(tmp_path / name / "tulip/0.png")
    )


def test_folder_passes_over_what_is_no_image(tmp_path):
    write(tmp_path, LAYOUT)
    (tmp_path / "train/rose/notes.txt").write_text("x")
    (tmp_path / "train/rose/.hidden.png").write_text("x")
    (tmp_path / "train/.cache").mkdir()
    task = folder(tmp_path)
    assert len(task.train.labels) + len(task.validation.labels) == 32


@pytest.mark.parametrize(
    "layout, message",
    [
        ({"train/a": 2}, r"no folder .*test; there are train"),
        ({"test/a": 2}, r"no folder .*train; there are test"),
        ({}, r"no folder .*train; there are none"),
        ({"train": 2, "test/a": 2}, "train has no class folders"),
        ({"train/a": 2, "test/b": 2}, r"class 'b' of .*test is not in training; .* a"),
        ({"train/a": 2, "train/b": 0, "test/a": 2}, "b has no images"),
        (LAYOUT | {"val/rose": 1, "validation/rose": 1}, "both validation and val"),
    ],
)
def test_folder_tells_what_is_wrong_with_the_layout(tmp_path, layout, message):
    with pytest.raises(ValueError, match=message):
        folder(write(tmp_path, layout))


def test_a_damaged_file_is_named_when_it_is_read(tmp_path):
    write(tmp_path, LAYOUT)
    (tmp_path / "test/rose/0.png").write_bytes(b"not a picture")
    task = folder(tmp_path)
    with pytest.raises(ValueError, match=r"test/rose/0\.png"):
        task.test.read(0)
