"""Your own texts in files: what is read, and what is told of what cannot be."""

import csv
import json

import numpy as np
import pytest

from subtune_jax.core import registry
from subtune_jax.data import text_files


def load(path, **arguments):
    return registry.load("tasks", {"name": "text_file", "path": str(path), **arguments})


def parts(task):
    return task.train, task.validation, task.test


def rows(split):
    return [
        (*split.read(i).values(), split.labels[i].item())
        for i in range(len(split.labels))
    ]


WORDS = [
    "plain",
    "with, comma",
    'a "quoted" word',
    "two\nlines",
    "",
    "  ",
    "naïve 漢字 🙂",
]


def examples(count=40):
    return [(f"{WORDS[i % 7]} {i}" if i else "", "ab"[i % 2]) for i in range(count)]


def write_csv(file, table, header=("text", "label")):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *table])
    return file


def write_json(file, table, keys=("text", "label")):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in table]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def write_tsv(file, table, header=("text", "label")):
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join("\t".join(row) for row in [header, *table])
    file.write_bytes(text.encode())
    return file


def flat(table):
    return [(text.replace("\n", " "), *rest) for text, *rest in table]


@pytest.mark.parametrize("write, suffix", [(write_csv, "csv"), (write_json, "jsonl")])
def test_every_row_is_in_one_part_as_it_was_written(tmp_path, write, suffix):
    task = load(write(tmp_path / f"x.{suffix}", examples()))
    assert task.classes == ("a", "b") and not task.regression
    together = [row for split in parts(task) for row in rows(split)]
    assert sorted(together) == sorted((t, "ab".index(c)) for t, c in examples())
    assert [np.bincount(split.labels).tolist() for split in parts(task)] == [
        [12, 12],
        [3, 3],
        [5, 5],
    ]


def test_quotation_marks_of_a_tsv_file_stand_for_themselves(tmp_path):
    table = flat(examples()) + [('"open', "a"), ('5" disk', "b")]
    task = load(write_tsv(tmp_path / "x.tsv", table))
    together = [row for split in parts(task) for row in rows(split)]
    assert sorted(together) == sorted((t, "ab".index(c)) for t, c in table)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_windows_lines_change_nothing(tmp_path, newline, mark):
    table = flat(examples())
    plain = load(write_tsv(tmp_path / "x.tsv", table))
    data = (tmp_path / "x.tsv").read_bytes()
    (tmp_path / "y.tsv").write_bytes(mark + data.replace(b"\n", newline) + newline)
    for one, other in zip(parts(plain), parts(load(tmp_path / "y.tsv")), strict=True):
        assert rows(one) == rows(other)


def test_columns_have_any_name_and_order_and_a_delimiter(tmp_path):
    file = tmp_path / "pairs.data"
    lines = [f"{'ny'[i % 2]};q{i};;s{i}" for i in range(30)]
    file.write_text("\n".join(["same;first;unused;second", *lines]))
    task = load(file, text="first", pair="second", label="same", delimiter=";")
    assert task.classes == ("n", "y")
    example = task.test.read(0)
    assert list(example) == ["text", "pair"]
    for split in parts(task):
        for text, pair, label in rows(split):
            assert pair == f"s{text[1:]}" and label == int(text[1:]) % 2


def test_numbers_are_learnt_as_numbers(tmp_path):
    table = [(f"t{i}", f"{i / 4 - 3}") for i in range(40)]
    task = load(write_csv(tmp_path / "x.csv", table), regression=True)
    assert task.regression and task.classes == ("label",)
    assert task.metric_name == "pearson" and "spearman" in task.also
    for split in parts(task):
        assert split.labels.dtype == np.float32
        for text, label in rows(split):
            assert label == int(text[1:]) / 4 - 3
    # Each tenth of the numbers is in training: four of them, of which two or three.
    numbers = np.sort(np.array([int(text[1:]) for text, _ in rows(task.train)]))
    assert set(np.bincount(numbers // 4, minlength=10)) <= {2, 3}


def test_integers_of_json_are_names_of_classes(tmp_path):
    table = [(f"t{i}", i % 3) for i in range(30)]
    assert load(write_json(tmp_path / "x.jsonl", table)).classes == ("0", "1", "2")


def test_the_same_text_is_in_one_part_only(tmp_path):
    table = [
        (f"  t{i // 3} " if i % 2 else f"t{i // 3}", "ab"[i % 2]) for i in range(90)
    ]
    task = load(write_csv(tmp_path / "x.csv", table))
    texts = [{text.strip() for text, _ in rows(split)} for split in parts(task)]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 30
    assert sum(len(split.labels) for split in parts(task)) == 90


def test_the_seed_alone_decides_the_cut(tmp_path):
    file = write_csv(tmp_path / "x.csv", examples())
    one, same, other = (rows(load(file, seed=seed).train) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("name", ["validation.csv", "val.jsonl", "dev.tsv"])
def test_parts_that_are_files_are_taken_as_they_are(tmp_path, name):
    write_csv(tmp_path / "train.csv", examples())
    write_json(tmp_path / "test.jsonl", examples(6))
    write = {"csv": write_csv, "jsonl": write_json, "tsv": write_tsv}
    write[name.split(".")[1]](tmp_path / name, [("x", "b"), ("y", "b")])
    task = load(tmp_path)
    assert rows(task.train) == [(t, "ab".index(c)) for t, c in examples()]
    assert rows(task.validation) == [("x", 1), ("y", 1)]
    assert rows(task.test) == [(t, "ab".index(c)) for t, c in examples(6)]


def test_validation_is_cut_from_training_where_it_has_no_file(tmp_path):
    write_csv(tmp_path / "train.csv", examples())
    write_csv(tmp_path / "test.csv", examples(6))
    task = load(tmp_path, validation=0.25)
    assert [np.bincount(split.labels).tolist() for split in parts(task)] == [
        [15, 15],
        [5, 5],
        [3, 3],
    ]
    together = rows(task.train) + rows(task.validation)
    assert sorted(together) == sorted((t, "ab".index(c)) for t, c in examples())


CSV = "text,label\ngood,a\nbad,b\n"
BAD = [  # name of the file, its content, arguments, the message
    ("x.csv", "", {}, r"x\.csv is empty"),
    ("x.csv", "\n \n", {}, r"x\.csv is empty"),
    ("x.csv", "text,label\n", {}, r"x\.csv has no rows"),
    ("x.csv", "text,lable\nx,a\n", {}, "x.csv:1: no column named 'label'; .*'lable'"),
    ("x.csv", CSV, {"pair": "b"}, "x.csv:1: no column named 'b'; .*label, text"),
    ("x.csv", "text,label,text\na,b,c\n", {}, "x.csv:1: several columns .* 'text'"),
    ("x.csv", CSV + "one\n", {}, "x.csv:4: 1 fields; the first line names 2"),
    ("x.csv", CSV + "a,b,c\n", {}, "x.csv:4: 3 fields; the first line names 2"),
    ("x.csv", CSV + '"two\nlines",a\none\n', {}, "x.csv:6: 1 fields"),
    ("x.csv", CSV + "\nmore,a\n", {}, "x.csv:4: the row is blank"),
    ("x.csv", CSV + "\n", {}, "x.csv:4: the row is blank"),
    ("x.csv", CSV + " , \n", {}, "x.csv:4: the row is blank"),
    ("x.csv", CSV + "text,\n", {}, "x.csv:4: label '' is empty"),
    ("x.csv", CSV + '"cut off,a\nb,c\n', {}, "x.csv:4: unexpected end of data"),
    ("x.csv", CSV + '"a"b,c\n', {}, "x.csv:4: ',' expected after"),
    ("x.csv", CSV, {"regression": True}, "x.csv:2: label 'a' is no finite number"),
    ("x.csv", "text,label\nx,nan\n", {"regression": True}, "x.csv:2: label 'nan' is"),
    ("x.csv", "text,label\nx,1e39\n", {"regression": True}, "x.csv:2: label '1e39' is"),
    ("x.csv", CSV + "c,a\n", {"delimiter": "::"}, "delimiter='::'; it is one char"),
    ("x.csv", "text,label\nx,a\ny,a\n", {}, "x.csv has only the class 'a'"),
    ("x.csv", CSV, {}, "x.csv has 2 different examples; .* a part empty"),
    ("x.csv", CSV, {"test": 0.9}, "validation=0.15 and test=0.9; both are above 0"),
    ("x.csv", CSV, {"validation": 0.0}, "validation=0.0 and test=0.25; both are"),
    ("x.dat", CSV, {}, "x.dat: what is its format.* .csv, .* or give a delimiter"),
    ("x.csv", CSV, {"txet": "text"}, "takes no 'txet'; did you mean 'text'"),
    ("x.jsonl", '{"text": "a"}\n', {}, "x.jsonl:1: no field named 'label'; .* text"),
    ("x.jsonl", '{"text": 3, "label": "a"}\n', {}, "x.jsonl:1: 'text' is 3; texts are"),
    ("x.jsonl", '{"text": null, "label": "a"}\n', {}, "x.jsonl:1: 'text' is null"),
    ("x.jsonl", '{"text": "x", "label": null}\n', {}, "x.jsonl:1: label None is neith"),
    ("x.jsonl", '{"text": "x", "label": true}\n', {}, "x.jsonl:1: label True is neith"),
    ("x.jsonl", '{"text": "x", "label": 1.5}\n', {}, "x.jsonl:1: label 1.5 is neither"),
    ("x.jsonl", '{"text": "x", "label": " "}\n', {}, "x.jsonl:1: label ' ' is empty"),
    ("x.jsonl", '{"text": "\\ud800", "label": "a"}', {}, "'text' is no Unicode text"),
    ("x.jsonl", '{"text": "a", "la\n', {}, "x.jsonl:1: this is no JSON"),
    ("x.jsonl", "[" * 100_000, {}, "x.jsonl:1: this is no JSON"),
    ("x.jsonl", '["text", "a"]\n', {}, "x.jsonl:1: a list; rows are objects"),
    ("x.jsonl", '{"text": "a", "label": "b"}\n\n{}\n', {}, "x.jsonl:2: the row is bl"),
    ("x.jsonl", "{}", {"delimiter": ","}, "x.jsonl: JSON lines have no delimiter"),
    ("x.jsonl", '{"text": "a", "label": true}', {"regression": True}, "no finite num"),
]  # fmt: skip


@pytest.mark.parametrize("name, content, arguments, message", BAD)
def test_a_mistake_is_told_in_one_line_with_file_and_line(
    tmp_path, name, content, arguments, message
):
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / name, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
@pytest.mark.parametrize("bad", [b"caf\xe9,a", "naïve".encode()[:3], b"\xff\xfe"])
def test_bytes_that_are_not_utf_8_are_told_with_their_line(tmp_path, name, bad):
    (tmp_path / name).write_bytes(b"text,label\ngood,a\n" + bad)
    what = rf"{name}:3: byte 0x[c-f]\w is not UTF-8; save the file as UTF-8"
    with pytest.raises(ValueError, match=what):
        load(tmp_path / name)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_label_that_training_lacks_is_told_with_its_line(tmp_path, part):
    for name in ("train", "validation", "test"):
        table = [
            ("x", "good"),
            ("two\nlines", "bad"),
            ("z", "god" if name == part else "bad"),
        ]
        write_csv(tmp_path / f"{name}.csv", table)
    what = rf"{part}\.csv:5: label 'god' is not in training; did you mean 'good'"
    with pytest.raises(ValueError, match=what) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.csv: No such file"):
        load(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"has no file train with \.csv.*is nothing"):
        load(tmp_path)
    write_csv(tmp_path / "train.csv", examples())
    with pytest.raises(ValueError, match=r"has no file test .*; there is train\.csv"):
        load(tmp_path)
    write_csv(tmp_path / "test.csv", examples())
    write_csv(tmp_path / "dev.csv", examples())
    write_csv(tmp_path / "val.csv", examples())
    with pytest.raises(ValueError, match=r"has both val\.csv and dev\.csv"):
        load(tmp_path)


@pytest.mark.parametrize("validation", [0.0, 1.0, 0, 40, -1, 0.001, "x"])
def test_a_cut_that_leaves_a_part_empty_is_refused(tmp_path, validation):
    write_csv(tmp_path / "train.csv", examples())
    write_csv(tmp_path / "test.csv", examples())
    with pytest.raises(ValueError, match=rf"validation={validation!r} of 40 trai"):
        load(tmp_path, validation=validation)


def test_a_text_may_be_empty_or_long(tmp_path):
    long = "word " * 200_000
    file = write_tsv(tmp_path / "x.tsv", [("", "a"), (long, "b"), ("c", "a")])
    limit = csv.field_size_limit()
    table = text_files.read(file)
    assert csv.field_size_limit() == limit < len(long)
    assert [example["text"] for example in table.examples] == ["", long, "c"]
    assert table.places == [f"{file}:{line}" for line in (2, 3, 4)]
