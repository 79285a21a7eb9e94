"""GLUE and inference out of domain: real files, prepared here, and TFDS's own mock."""

import importlib
import shutil
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds

from subtune_jax.core import losses, registry
from subtune_jax.data import agreement, tfds_texts
from subtune_jax.tasks import glue, transfer

CLASSES = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "stsb": ("score",),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}
METRICS = {  # as GLUE has them, the one that decides first
    "cola": ("matthews", "accuracy"),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman", "mean_squared_error"),
}


def load(name="glue", **arguments):
    return registry.load("tasks", {"name": name, **arguments})


def parts(task):
    return task.train, task.validation, task.test


@pytest.mark.parametrize("dataset", CLASSES)
def test_every_task_of_glue_is_there_with_its_metrics(dataset):
    with tfds.testing.mock_data(num_examples=20):
        task = load(dataset=dataset)
    assert task.classes == CLASSES[dataset]
    assert task.regression == (dataset == "stsb")
    names = (task.metric_name, *task.also)
    assert names == METRICS.get(dataset, ("accuracy",))
    assert [len(split.labels) for split in parts(task)] == [18, 2, 20]
    for split in parts(task):
        kind = np.float32 if task.regression else np.int32
        assert split.labels.dtype == kind
        example = split.read(len(split.labels) - 1)
        pair = ["text"] if dataset in ("cola", "sst2") else ["text", "pair"]
        assert list(example) == pair
        assert all(isinstance(text, str) for text in example.values())
    assert "tensorflow" not in sys.modules


def test_glue_has_eight_tasks():
    assert glue.PRESETS.keys() == CLASSES.keys()


def test_the_metrics_are_what_they_are_called():
    with tfds.testing.mock_data(num_examples=20):
        tasks = {dataset: load(dataset=dataset) for dataset in METRICS}
    for task in tasks.values():
        for name, metric in {task.metric_name: task.metric, **task.also}.items():
            assert metric is getattr(agreement, name, None) or metric is losses.accuracy
            assert (metric is losses.accuracy) == (name == "accuracy")
    assert tasks["stsb"].loss is losses.squared
    assert tasks["mrpc"].loss is losses.cross_entropy


HEADS = {  # of the files that GLUE publishes: columns, and those that hold an example
    "sst2": ("sentence\tlabel", "{text}\t{label}"),
    "stsb": ("sentence1\tsentence2\tscore", "{text}\tpair of {text}\t{score}"),
    "mnli": ("sentence1\tsentence2\tgold_label", "{text}\tpair of {text}\t{name}"),
    "rte": ("sentence1\tsentence2\tlabel", "{text}\tpair of {text}\t{entailed}"),
}
MATCHED = [f"{part}_{kind}matched" for part in ("dev", "test") for kind in ("", "mis")]
FILES = ("train", "dev", "test", *MATCHED)


def publish(root, dataset):
    """Files as GLUE publishes them: 30 examples in train.tsv, 12 in the others."""
    root.mkdir(parents=True)
    head, row = HEADS[dataset]
    for file in FILES:
        rows = [
            row.format(
                text=f'{file} "n° {i}', label=i % 2, score=i / 8,
                name=CLASSES["mnli"][i % 3],
                entailed=("entailment", "not_entailment")[i % 2],
            )
            for i in range(30 if file == "train" else 12)
        ]  # fmt: skip
        (root / f"{file}.tsv").write_text("\n".join([head, *rows]) + "\n", "utf-8")


@pytest.fixture(scope="module")
def glued(tmp_path_factory):
    """A folder where TFDS's own code has prepared four tasks from such files."""
    root = tmp_path_factory.mktemp("glue")
    module = importlib.import_module(tfds_texts.MODULES["glue"])
    with pytest.MonkeyPatch.context() as patch:
        manager = tfds.download.DownloadManager
        for dataset in HEADS:
            builder = module.Glue(
                config=dataset, data_dir=root, file_format="array_record"
            )
            folder = builder.builder_config.data_dir
            publish(root / "files" / dataset / folder, dataset)
            where = str(root / "files" / dataset)
            patch.setattr(manager, "download_and_extract", lambda *_, at=where: at)
            builder.download_and_prepare()
    return str(root)


def rows(split):
    return sorted(
        (*split.read(i).values(), split.labels[i].item())
        for i in range(len(split.labels))
    )


def test_glue_as_tfds_prepares_it_is_read_without_tensorflow(glued):
    task = load(dataset="sst2", data_dir=glued)
    train = [(f'train "n° {i}', i % 2) for i in range(30)]
    assert rows(task.test) == sorted((f'dev "n° {i}', i % 2) for i in range(12))
    assert sorted(rows(task.train) + rows(task.validation)) == sorted(train)
    assert [len(split.labels) for split in parts(task)] == [27, 3, 12]
    assert "tensorflow" not in sys.modules


def test_scores_are_numbers_and_validation_has_some_of_all_heights(glued):
    task = load(dataset="stsb", data_dir=glued, validation_examples=10)
    for split in parts(task):
        for text, pair, score in rows(split):
            assert pair == f"pair of {text}" and score == int(text.split()[-1]) / 8
    # Three of each tenth are in training: one of these is validation.
    numbers = np.array([int(text.split()[-1]) for text, *_ in rows(task.validation)])
    assert (np.bincount(numbers // 3, minlength=10) == 1).all()


@pytest.mark.parametrize("mismatched, file", [(False, "matched"), (True, "mismatched")])
def test_mnli_is_tested_on_the_genres_that_are_asked_for(glued, mismatched, file):
    task = load(dataset="mnli", mismatched=mismatched, data_dir=glued)
    expected = [f'dev_{file} "n° {i}' for i in range(12)]
    assert [text for text, *_ in rows(task.test)] == sorted(expected)
    for text, _, label in rows(task.train) + rows(task.test):
        assert label == int(text.split()[-1]) % 3


def test_the_same_seed_cuts_the_same_validation(glued):
    one, same, other = (
        rows(load(dataset="sst2", data_dir=glued, seed=seed).validation)
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_a_test_of_two_classes_asks_for_entailment_only(glued):
    task = load("transfer", train="mnli", test="rte", data_dir=glued)
    assert task.classes == CLASSES["mnli"]
    assert task.metric_name == "entailment_accuracy"
    for text, _, label in rows(task.test):
        assert label == int(text.split()[-1]) % 2 and text.startswith("dev ")
    assert {label for *_, label in rows(task.train)} == {0, 1, 2}
    sure = 5 * np.eye(3)
    logits, labels = sure[[0, 1, 2, 0, 2]], np.array([0, 1, 1, 1, 0])
    assert task.metric(logits, labels) == pytest.approx(3 / 5)
    three = load("transfer", train="mnli", test="mnli", data_dir=glued)
    assert three.metric is losses.accuracy and three.metric_name == "accuracy"


@pytest.mark.parametrize("train", transfer.TRAIN)
@pytest.mark.parametrize("test", transfer.TEST)
def test_every_pair_of_sets_is_there(train, test):
    with tfds.testing.mock_data(num_examples=20):
        task = load("transfer", train=train, test=test)
    two = test in ("scitail", "rte")
    assert task.metric_name == ("entailment_accuracy" if two else "accuracy")
    assert set(task.test.labels) <= set(range(2 if two else 3))
    assert list(task.test.read(0)) == list(task.train.read(0)) == ["text", "pair"]


SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"


def sick(tmp_path, content):
    file = tmp_path / "SICK_test_annotated.txt"
    file.write_text(SICK + content)
    with tfds.testing.mock_data(num_examples=20):
        return load("transfer", train="snli", test="sick", path=str(file))


def test_sick_is_read_from_its_own_file(tmp_path):
    kinds = ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")
    content = "".join(f'{i}\ta "{i}\tb\t3.4\t{kinds[i % 3]}\n' for i in range(7))
    task = sick(tmp_path, content)
    assert rows(task.test) == [(f'a "{i}', "b", i % 3) for i in range(7)]


def test_a_label_that_sick_does_not_have_is_told_with_its_line(tmp_path):
    with pytest.raises(ValueError, match=r"annotated.txt:3: label 'NEUTRL' is no clas"):
        sick(tmp_path, "1\ta\tb\t3.4\tNEUTRAL\n2\ta\tb\t3.4\tNEUTRL\n")


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("glue", {"dataset": "sst"}, "no task of GLUE named 'sst'; .* 'sst2'"),
        ("glue", {"dataset": "wnli"}, "no task of GLUE named 'wnli'"),
        ("glue", {"mismatched": True}, "mismatched=True; only 'mnli' has .*'sst2'"),
        ("transfer", {"train": "sick"}, "train='sick' is not known; .*mnli, snli"),
        ("transfer", {"test": "scitale"}, "test='scitale' is not known; .*'scitail'"),
        (
            "transfer",
            {"test": "sick"},
            "'sick' and path=None; path is of 'sick', whose",
        ),
        ("transfer", {"path": "x"}, "test='snli' and path='x'; path is of 'sick'"),
        ("glue", {"validation_examples": 20}, "validation=20 of 20 training examples"),
    ],
)
def test_what_is_asked_for_in_vain_is_told_in_one_line(name, arguments, message):
    with tfds.testing.mock_data(num_examples=20):
        with pytest.raises(ValueError, match=message) as caught:
            load(name, **arguments)
    assert "\n" not in str(caught.value)


def test_glue_that_is_not_prepared_is_told_with_the_cure(tmp_path):
    with pytest.raises(ValueError, match="is not prepared as array_record") as caught:
        load(dataset="rte", data_dir=str(tmp_path))
    cure = f"'glue/rte', data_dir='{tmp_path}', file_format='array_record'"
    assert f"tfds.builder({cure}).download_and_prepare()" in str(caught.value)
    # Without that import `tfds.builder` finds no data set of that name.
    assert "after `import tensorflow_datasets.text.glue`" in str(caught.value)
    assert "\n" not in str(caught.value)


BUILDER = '''
    import io
    import numpy as np
    import tensorflow_datasets as tfds

    class Odd(tfds.core.GeneratorBasedBuilder):
        """Text number i has label i % 3 - 1; number 7 is not UTF-8."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                    "number": np.float32,
                    "image": tfds.features.Image(shape=(None, None, 1)),
                })
            )

        def _split_generators(self, downloads):
            return {"train": self._generate_examples(9), "none": self._none()}

        def _example(self, i):
            text = b"caf\\xe9" if i == 7 else "" if i == 2 else f"t{i} é"
            label, number = i % 3 - 1, np.inf if i == 4 else i / 2
            broken = io.BytesIO(b"this is no image")
            return {"text": text, "label": label, "number": number, "image": broken}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, self._example(i)

        def _none(self):
            yield 0, self._example(0)
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    package = root / "code" / "odd_for_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "odd.py").write_text(textwrap.dedent(BUILDER))
    sys.path.insert(0, str(root / "code"))
    try:
        module = importlib.import_module("odd_for_tests.odd")
    finally:
        sys.path.pop(0)
    module.Odd(data_dir=root, file_format="array_record").download_and_prepare()
    return str(root)


def test_examples_whose_label_is_hidden_are_left_out(odd):
    split, classes = tfds_texts.split("odd", "train", ("text",), data_dir=odd)
    assert classes == ("a", "b")
    assert sorted(split.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    for index, label in enumerate(split.labels):
        try:
            text = split.read(index)["text"]
        except ValueError as error:  # number 7, label 0
            assert label == 0
            assert "odd train: example" in str(error) and "is not UTF-8" in str(error)
            continue
        assert text == "" or int(text[1]) % 3 - 1 == label
    with pytest.raises(ValueError, match="odd none: no example has a label"):
        tfds_texts.split("odd", "none", ("text",), data_dir=odd)


@pytest.mark.parametrize(
    "columns, label, message",
    [
        (("txt",), "label", "odd has no feature named 'txt'; .*'text'"),
        (("text", "image"), "label", "odd: feature 'image' is no text"),
        (("text",), "lable", "odd has no feature named 'lable'; .*'label'"),
        (("text",), "text", "odd: feature 'text' has no classes and is no number"),
        (("text",), "number", r"odd train: label inf of example \d is no finite"),
    ],
)
def test_features_that_cannot_be_meant_are_told(odd, columns, label, message):
    with pytest.raises(ValueError, match=message) as caught:
        tfds_texts.split("odd", "train", columns, label, odd)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [65_536, 10, 0])
def test_a_prepared_file_that_is_cut_off_is_told_in_one_line(odd, tmp_path, kept):
    shutil.copytree(odd, tmp_path / "data")
    (file,) = (tmp_path / "data" / "odd").glob("1.0.0/*train*")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="odd train: example 0") as caught:
        tfds_texts.split("odd", "train", ("text",), data_dir=str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
