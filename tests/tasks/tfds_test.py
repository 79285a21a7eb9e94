"""Data sets of TFDS: real files, prepared here, and what can be wrong with them."""

import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds

from subtune_jax.core import registry
from subtune_jax.data import tfds_images

BUILDER = '''
    import io
    import numpy as np
    import tensorflow_datasets as tfds
    from PIL import Image

    class Tiny(tfds.core.GeneratorBasedBuilder):
        """Image number i is of colour (i, i, i) and has label i % 3."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({
                    "image": tfds.features.Image(shape=(None, None, 1)),
                    "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
                    "number": np.int64,
                })
            )

        def _split_generators(self, downloads):
            examples = self._generate_examples
            return {"train": examples(0, 20), "test": examples(20, 30)}

        def _generate_examples(self, first, last):
            for i in range(first, last):
                # Encoded: TFDS encodes arrays with TensorFlow only.
                file = io.BytesIO()
                Image.fromarray(np.full((6, 4), i, np.uint8)).save(file, "PNG")
                file.seek(0)
                yield i, {"image": file, "label": i % 3, "number": i}
'''


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the data set `tiny`, prepared as array_record."""
    root = tmp_path_factory.mktemp("tfds")
    package = root / "code" / "tiny_for_tests"  # TFDS wants a folder of its own
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tiny.py").write_text(textwrap.dedent(BUILDER))
    sys.path.insert(0, str(root / "code"))
    try:
        from tiny_for_tests.tiny import Tiny
    finally:
        sys.path.pop(0)
    Tiny(data_dir=root, file_format="array_record").download_and_prepare()
    return str(root)


def load(name="tfds", **arguments):
    return registry.load("tasks", {"name": name, **arguments})


def numbers(split):
    return [int(split.read(i)["image"][0, 0, 0]) for i in range(len(split.labels))]


def test_prepared_files_are_read_without_tensorflow(tiny):
    task = load(dataset="tiny", data_dir=tiny)
    train, validation, test = map(numbers, (task.train, task.validation, task.test))
    assert (len(train), len(validation)) == (18, 2)  # the slices are kept to
    assert sorted(train + validation) == list(range(20))
    assert sorted(test) == list(range(20, 30))
    assert task.classes == ("a", "b", "c")
    for split, expected in ((task.train, train), (task.test, test)):
        assert split.labels.tolist() == [number % 3 for number in expected]
    image = task.test.read(0)["image"]
    assert image.dtype == np.uint8 and image.shape == (6, 4, 3)
    assert (image == image[..., :1]).all()
    assert "tensorflow" not in sys.modules


def test_labels_are_read_without_decoding_an_image(tiny, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(tfds.features.Image, "decode_example_np", refuse)
    task = load(dataset="tiny", data_dir=tiny)
    with pytest.raises(AssertionError, match="an image was decoded"):
        task.test.read(0)


def test_limits_keep_the_first_examples_and_brightness_is_a_factor(tiny):
    slices = ("train[:50%]", "train[50%:]", "test")
    whole = tfds_images.task("x", "tiny", slices, data_dir=tiny)
    first = tfds_images.task(
        "x", "tiny", slices, limits=(4, 3, None), brightness=2, data_dir=tiny
    )
    for one, other, limit in zip(first[2:5], whole[2:5], (4, 3, 10), strict=True):
        assert one.labels.tolist() == other.labels.tolist()[:limit]
        assert numbers(one) == [2 * number for number in numbers(other)[:limit]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"label_key": "lable"}, "tiny has no feature named 'lable'; .* 'label'"),
        ({"image_key": "img"}, "tiny has no feature named 'img'"),
        ({"image_key": "number"}, "feature 'number' is no uint8 image"),
        ({"label_key": "number"}, "feature 'number' has no classes"),
        ({"test": "tset"}, "cannot read 'tset' of tiny: Unknown split"),
        ({"train": "train[:x]"}, r"cannot read 'train\[:x\]' of tiny: .*format"),
    ],
)
def test_what_is_not_there_is_told(tiny, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(dataset="tiny", data_dir=tiny, **arguments)
    assert "\n" not in str(caught.value)


def test_a_label_outside_the_classes_is_told(tiny):
    target = tfds_images.Target("number", int, ("a", "b"))
    with pytest.raises(ValueError, match=r"tiny test: label \d+ .* outside \[0, 2\)"):
        tfds_images.task("x", "tiny", ("test",) * 3, target=target, data_dir=tiny)


@pytest.mark.parametrize("dataset", ["cifar10", "sun397/tfds"])
def test_a_data_set_that_is_not_prepared_is_told_with_the_cure(tmp_path, dataset):
    with pytest.raises(ValueError, match="is not prepared as array_record") as caught:
        load(dataset=dataset, data_dir=str(tmp_path))
    cure = f"'{dataset}', data_dir='{tmp_path}', file_format='array_record'"
    assert f"tfds.builder({cure}).download_and_prepare()" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_is_refused_because_it_ignores_slices(tiny, monkeypatch):
    parquet = property(lambda _: tfds.core.FileFormat.PARQUET)
    monkeypatch.setattr(tfds.core.DatasetInfo, "file_format", parquet)
    with pytest.raises(ValueError, match="tiny is prepared as parquet; prepare it by"):
        load(dataset="tiny", data_dir=tiny)


@pytest.mark.parametrize(
    "name, dataset, message",
    [
        ("tfds", "cifra10", "no data set named 'cifra10'; did you mean .*'cifar10'"),
        ("tfds", "qqqqqq", "no data set named 'qqqqqq'; there are"),
        ("tfds", "eurosat/none", "TFDS cannot build 'eurosat/none'"),
        ("vtab", "cifar", "no task of VTAB named 'cifar'; did you mean 'cifar100'"),
        ("fgvc", "car", "no data set of FGVC named 'car'; did you mean 'cars'"),
        ("fgvc", "nabirds", "TFDS does not have 'nabirds'; .* task.name=folder"),
    ],
)
def test_an_unknown_name_is_told_in_one_line(tmp_path, name, dataset, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(name, dataset=dataset, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
