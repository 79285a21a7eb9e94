"""Tasks with masks: drawn ones, files in folders, and data sets of TFDS."""

import functools
import importlib
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from subtune_jax.core import registry
from subtune_jax.data import images


def load(name, **arguments):
    return registry.load("tasks", {"name": name, **arguments})


def parts(task):
    return task.train, task.validation, task.test


def folder(path, **arguments):
    return load("folder_masks", path=str(path), **arguments)


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def write(root, counts, scale=1, highest=2, suffix=".png"):
    """Images of which the red channel is twenty times the mask."""
    rng = np.random.default_rng(0)
    for part, count in counts.items():
        for number in range(count):
            mask = rng.integers(0, highest, (7, 5 + number % 3)).astype(np.uint8)
            image = np.repeat(20 * mask[..., None], 3, -1)
            save(root / part / "images" / f"{number}.png", image)
            save(root / part / "masks" / f"{number}{suffix}", mask * np.uint8(scale))
    return root


COUNTS = {"train": 20, "test": 4}


def same(split):
    for index in range(len(split.labels)):
        red = split.read(index)["image"][..., 0]
        np.testing.assert_array_equal(split.mask(index), red // 20)
        assert split.mask(index).dtype == np.uint8


def test_folders_hold_an_image_and_a_mask_of_one_name(tmp_path):
    task = folder(write(tmp_path, COUNTS), validation=0.25)
    assert task.dense and task.classes == ("background", "object")
    assert [len(split.labels) for split in parts(task)] == [15, 5, 4]
    for split in parts(task):
        same(split)
    contents = [s.read(i)["image"].tobytes() for s in parts(task)[:2] for i in range(5)]
    assert len(set(contents)) == 10


def test_a_validation_folder_is_taken_as_it_is(tmp_path):
    task = folder(write(tmp_path, COUNTS | {"val": 3}))
    assert [len(split.labels) for split in parts(task)] == [20, 3, 4]
    same(task.validation)


def test_masks_in_black_and_white_have_a_threshold(tmp_path):
    task = folder(write(tmp_path, COUNTS, 255), threshold=128)
    same(task.train)
    same(task.test)


def test_values_and_palettes_stand_for_classes(tmp_path):
    write(tmp_path, COUNTS, highest=3)
    classes = ("ground", "one", "two")
    same(folder(tmp_path, classes=classes).train)
    task = folder(tmp_path, classes=classes[:2], values=(2, 0), ignored=(1,))
    red = task.train.read(0)["image"][..., 0] // 20
    np.testing.assert_array_equal(task.train.mask(0), np.array([1, 255, 0])[red])
    for file in (tmp_path / "train/masks").iterdir():
        mask = Image.fromarray(images.read_mask(file))
        mask.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
        assert mask.mode == "P"
        mask.save(file)
    same(folder(tmp_path, classes=classes).train)


@pytest.mark.parametrize(
    "gone, message",
    [
        ("train/masks/3.png", r"train/images/3.png has no mask of its name"),
        ("test/images/1.png", r"test/masks/1.png has no image of its name"),
    ],
)
def test_a_file_without_its_other_half_is_named(tmp_path, gone, message):
    (write(tmp_path, COUNTS) / gone).unlink()
    with pytest.raises(ValueError, match=message):
        folder(tmp_path)


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*train/images; the layout is"):
        folder(tmp_path)
    (tmp_path / "train/images").mkdir(parents=True)
    with pytest.raises(ValueError, match="train/images has no images"):
        folder(tmp_path)
    write(tmp_path, COUNTS | {"val": 1, "validation": 1})
    with pytest.raises(ValueError, match="both validation and val"):
        folder(tmp_path)


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.zeros((7, 9), np.uint8), r"masks/0.png is 9 x 7 pixels; its image is 5 x"),
        (np.full((7, 5), 3, np.uint8), r"masks/0.png holds the value 3; classes are"),
        (np.zeros((7, 5, 3), np.uint8) + np.arange(3, dtype=np.uint8), "one channel"),
        (np.zeros((7, 5), np.uint16), "one channel of 8 bits"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_named_in_one_line(tmp_path, pixels, message):
    write(tmp_path, COUNTS)
    save(tmp_path / "test/masks/0.png", pixels)
    task = folder(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        task.test.mask(0)
    assert "\n" not in str(caught.value) and "0.png" in str(caught.value)


def test_a_damaged_mask_is_named(tmp_path):
    write(tmp_path, COUNTS)
    (tmp_path / "test/masks/0.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"masks/0\.png"):
        folder(tmp_path).test.mask(0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"threshold": 128, "values": (0, 1)}, "a threshold tells two classes apart"),
        ({"values": (0, 1, 2)}, "there are 2 classes"),
        ({"classes": ("one",)}, "1 classes; masks hold 2 to 255"),
    ],
)
def test_arguments_that_contradict_each_other_are_told(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        folder(write(tmp_path, COUNTS), **arguments)


@functools.cache
def polyps(**arguments):
    return load("polyps", examples=90, image_size=48, **arguments)


def test_polyps_are_the_seeds_and_in_one_split_only():
    one, again, other = (
        polyps(),
        load("polyps", examples=90, image_size=48),
        polyps(seed=1),
    )
    assert [len(split.labels) for split in parts(one)] == [54, 14, 22]
    digests = set()
    for here, there, else_ in zip(parts(one), parts(again), parts(other), strict=True):
        for index in range(len(here.labels)):
            image, mask = here.read(index)["image"], here.mask(index)
            np.testing.assert_array_equal(image, there.read(index)["image"])
            np.testing.assert_array_equal(mask, there.mask(index))
            assert (image != else_.read(index)["image"]).any()
            digests.add(images.digest(image))
    assert len(digests) == 90


def test_polyps_are_some_of_every_image_and_differ_little_in_colour():
    task, shares, apart, spread = polyps(), [], [], []
    for index in range(len(task.train.labels)):
        image = task.train.read(index)["image"].astype(float)
        mask = task.train.mask(index)
        assert mask.shape == image.shape[:2] and set(np.unique(mask)) == {0, 1}
        shares.append(mask.mean())
        inside, outside = image[mask == 1].mean(0), image[mask == 0].mean(0)
        apart.append(np.abs(inside - outside).mean())
        spread.append(image[mask == 0].std(0).mean())
    assert 0.005 < min(shares) and max(shares) < 0.5
    assert 0.05 < np.mean(shares) < 0.25
    assert np.mean(apart) < 2 * np.mean(spread)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 8}, "image_size=8 is too small"),
        ({"examples": 2}, "examples=2; there are three splits"),
        ({"fractions": (0.5, 0.5)}, "there are three"),
        ({"raised": (0.5, 0.2)}, r"raised=\(0.5, 0.2\); it is the least and the most"),
    ],
)
def test_polyps_that_cannot_be_drawn_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("polyps", **arguments)


BUILDER = '''
    import io
    import numpy as np
    import tensorflow_datasets as tfds
    from PIL import Image

    def file(pixels):
        # Encoded: TFDS encodes arrays with TensorFlow only.
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        stream.seek(0)
        return stream

    class Masked(tfds.core.GeneratorBasedBuilder):
        """Image i is of colour 20 * mask; the mask is 1 + its row + i modulo 3."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "segmentation_mask": tfds.features.Image(
                        shape=(None, None, 1), use_colormap=True
                    ),
                })
            )

        def _split_generators(self, downloads):
            examples = self._generate_examples
            return {"train": examples(0, 20), "test": examples(20, 26)}

        def _generate_examples(self, first, last):
            for i in range(first, last):
                mask = np.repeat((np.arange(6) + i)[:, None] % 3 + 1, 4, 1)
                mask = mask.astype(np.uint8)
                image = np.repeat(20 * mask[..., None], 3, -1)
                yield i, {"image": file(image), "segmentation_mask": file(mask)}
'''


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A folder with the data set `masked`, prepared as array_record."""
    root = tmp_path_factory.mktemp("tfds")
    package = root / "code" / "masked_for_tests"  # TFDS wants a folder of its own
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "masked.py").write_text(textwrap.dedent(BUILDER))
    sys.path.insert(0, str(root / "code"))
    try:
        module = importlib.import_module("masked_for_tests.masked")
    finally:
        sys.path.pop(0)
    module.Masked(data_dir=root, file_format="array_record").download_and_prepare()
    return str(root)


def test_masks_of_tfds_are_read_and_recoded_without_tensorflow(masked):
    task = load("tfds_masks", dataset="masked", data_dir=masked)
    assert [len(split.labels) for split in parts(task)] == [18, 2, 6]
    for split in parts(task):
        for index in range(len(split.labels)):
            stored = split.read(index)["image"][..., 0] // 20
            expected = np.array([0, 1, 0, 255])[stored]  # 1 is the pet, 3 ignored
            np.testing.assert_array_equal(split.mask(index), expected)
    assert "tensorflow" not in sys.modules


def test_a_mask_is_read_without_its_image(masked, monkeypatch):
    task = load("tfds_masks", dataset="masked", data_dir=masked)
    decoded, decode = [], tfds.features.Image.decode_example_np

    def counted(self, example):
        decoded.append(self.shape)
        return decode(self, example)

    monkeypatch.setattr(tfds.features.Image, "decode_example_np", counted)
    task.test.mask(0)
    assert decoded == [(None, None, 1)]


def test_the_pets_of_tfds_are_the_default():
    with tfds.testing.mock_data(num_examples=8):
        task = load("tfds_masks", values=tuple(range(2)), ignored=tuple(range(2, 255)))
        image, mask = task.test.read(0)["image"], task.test.mask(0)
    assert task.classes == ("background", "pet")
    assert image.shape[-1] == 3 and mask.ndim == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mask_key": "mask"}, "masked has no feature named 'mask'"),
        ({"mask_key": "image"}, "'image' is no uint8 image of 1 channels"),
        ({"test": "tset"}, "cannot read 'tset' of masked: Unknown split"),
        ({"classes": ("a",)}, "there are 1 classes"),
    ],
)
def test_what_is_not_there_is_told(masked, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        load("tfds_masks", dataset="masked", data_dir=masked, **arguments)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_no_class_is_told(masked):
    task = load("tfds_masks", dataset="masked", data_dir=masked, ignored=())
    with pytest.raises(ValueError, match="masked test: mask 0 holds the value 3"):
        task.test.mask(0)
