"""Promises of the journal: what was written stays, what was torn is written again."""

import json
import os

import pytest

from subtune_jax.subtuning import journal

RECORDS = {
    '[["block01"], [], 0, 20]': {"value": 0.1 + 0.2, "steps": 20, "trained": 20},
    "Größe 大小 🦎 \n": {"value": 1e-300, "name": "é\u2028\n", "list": [1, None]},
    "": {},
}


def written(folder):
    """The file of a journal of all records."""
    record = journal.read(folder)
    for key, one in RECORDS.items():
        journal.write(record, key, one)
    return record.path


def test_a_folder_without_a_journal_has_an_empty_one_and_stays_as_it_is(tmp_path):
    folder = tmp_path / "new"
    assert journal.read(folder) == (folder / "journal.jsonl", {})
    assert not folder.exists()
    folder.mkdir()
    (folder / "journal.jsonl").touch()
    assert journal.read(folder).records == {}


def test_records_are_read_as_they_were_written(tmp_path):
    path = written(tmp_path / "a" / "b")
    assert journal.read(path.parent).records == RECORDS
    lines = path.read_text("ascii").splitlines()
    assert [json.loads(line)["key"] for line in lines] == list(RECORDS)


def test_the_journal_in_memory_knows_what_was_written(tmp_path):
    record = journal.read(tmp_path)
    given = {"value": 1}
    journal.write(record, "a", given)
    given["value"] = 2
    assert record.records == {"a": {"value": 1}}


def test_a_later_record_of_the_same_key_counts(tmp_path):
    record = journal.read(tmp_path)
    journal.write(record, "a", {"value": 1})
    journal.write(record, "a", {"value": 2})
    assert record.records == journal.read(tmp_path).records == {"a": {"value": 2}}


def test_a_record_is_on_disk_when_write_returns(tmp_path, monkeypatch):
    synced = []

    def fsync(number):
        file = os.fstat(number)
        synced.append((file.st_ino, file.st_size))

    monkeypatch.setattr(journal.os, "fsync", fsync)
    record = journal.read(tmp_path)
    for key in "ab":
        journal.write(record, key, {"value": 1})
        file = record.path.stat()
        assert synced[-1] == (file.st_ino, file.st_size)  # nothing came after it
        assert key in journal.read(tmp_path).records


def test_a_line_torn_at_any_byte_is_dropped_and_written_over(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    keys = list(RECORDS)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        count = whole[:size].count(b"\n")
        record = journal.read(tmp_path)
        assert record.records == {key: RECORDS[key] for key in keys[:count]}
        assert path.read_bytes() == whole[:size]  # reading repairs nothing
        for key in keys[count:]:
            journal.write(record, key, RECORDS[key])
        assert path.read_bytes() == whole
        path.write_bytes(whole[:size])
        journal.write(journal.read(tmp_path), "x", {})  # shorter than what was torn
        lines = whole.splitlines(keepends=True)[:count]
        assert path.read_bytes() == b"".join(lines) + b'{"key": "x"}\n'


@pytest.mark.parametrize("torn", [b'{"key": "\xff', b"\0" * 4096, b"\xf0\x9f"])
def test_a_torn_line_may_be_any_bytes(torn, tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + torn)
    record = journal.read(tmp_path)
    assert record.records == RECORDS
    journal.write(record, "x", {})
    assert journal.read(tmp_path).records == {**RECORDS, "x": {}}


DAMAGED = [b"", b"{", b"3", b"[]", b'"key"', b"{}", b'{"key": []}', b'{"key": "\xff"}']


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_line_is_refused_by_its_number(number, damage, tmp_path):
    path = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=f"jsonl line {number} is no record") as error:
        journal.read(tmp_path)
    assert "\n" not in str(error.value)
