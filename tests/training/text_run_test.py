"""Runs on texts, of classes and of numbers: from a file to results; refusals."""

import csv
import json

import jax
import numpy as np
import pytest
import tokenizers
from PIL import Image

from subtune_jax.backbones import bert
from subtune_jax.commands import compare as compare_command
from subtune_jax.commands import configs
from subtune_jax.commands import evaluate as evaluate_command
from subtune_jax.commands import search as search_command
from subtune_jax.commands import train as train_command
from subtune_jax.training import report_data, run, setup, workdir

KINDS = {"classes": False, "numbers": True}
BERT = {"name": "bert", **bert.TINY, "lengths": (4,)}  # batches of 4 tokens, or of 8
MARK = "<script>$x_{&$</script>"  # what no report may take for its own
PLAIN = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({given!r})
"""


def write(file, rows, header=("text", "label")):
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def rows(regression, count=60):
    """Texts whose first word tells the label; every seventh is a long one."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        kind = number % 2
        word = ("dull", "wise")[kind]
        text = f"{word} {number}" + f" {MARK} 漢字" * (number % 7 == 3)
        found.append((text, kind + rng.normal() / 9 if regression else word))
    return found


def given(file, regression=False, **more):
    plain = {
        "task": {"name": "text_file", "path": str(file), "regression": regression},
        "backbone": BERT,
        "method": {"name": "full"},
        "optimizer": {"learning_rate": 1e-2, "probe_steps": 2},
        "batch_size": 4,
        "train_steps": 24,
        "eval_steps": 0,
        "save_steps": 0,
        "parallel": "shard_map",
        "report": True,
    }
    return {**plain, **more}


def config(folder, settings_):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.py"
    file.write_text(PLAIN.format(given=settings_))
    return file


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The first of the simulated ones."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)


@pytest.fixture(scope="module", params=KINDS)
def file(request, tmp_path_factory):
    regression = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return write(folder / "sayings.csv", rows(regression)), regression


def test_a_run_on_texts_learns_reports_and_is_evaluated(file, tmp_path, capsys):
    whole, programs = configs.complete(given(*file)), {}
    run.run(whole, tmp_path / "run", programs)
    (ready,) = programs.values()
    steps = [key for key, _ in ready.compiled if key[0] == "step"]
    assert len(steps) == 2  # a program for each length that came
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["frozen_unchanged"] is True
    assert result["metrics"]["name"] == ("pearson" if file[1] else "accuracy")
    assert result["metrics"]["test"] > 0.8
    records = workdir.read_log(tmp_path / "run")
    losses = [r["loss"] for r in records if r["split"] == "train"]
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    path = config(tmp_path, whole)
    arguments = [f"--config={path}", f"--workdir={tmp_path / 'run'}"]
    assert evaluate_command.main(arguments) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["metric"]["value"] == pytest.approx(result["metrics"]["test"])
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    shown = page.split("<details>")[0]
    assert ("Predictions on the test split" in shown) == file[1]
    assert ("Confusion matrix" in shown) != file[1]
    assert "<script" not in page
    if file[1]:  # there are errors of numbers, however small
        assert (
            "largest errors on the test split" in shown and MARK.split("<")[0] in shown
        )
        assert "dull" in shown and "wise" in shown
    with Image.open(tmp_path / "run" / "report.png") as overview:
        overview.verify()


def test_mistakes_are_the_texts_of_the_worst_answers(file):
    made = setup.prepare(configs.complete(given(*file)))
    test, rng = made.task.test, np.random.default_rng(0)
    count = len(test.labels)
    logits = rng.normal(size=(count, len(made.task.classes))).astype(np.float32)
    examples = setup.examples(made.backbone, test)
    found = report_data.mistakes(made, logits, test.labels, examples, count=3)
    if file[1]:
        size = [-abs(float(logits[i, 0]) - test.labels[i]) for i in range(count)]
    else:
        odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        right = logits.argmax(1) == test.labels
        size = [np.inf if r else -o.max() for r, o in zip(right, odds, strict=True)]
    worst = sorted(range(count), key=size.__getitem__)[:3]
    assert [one["text"] for one in found] == [test.read(i)["text"] for i in worst]
    for one, i in zip(found, worst, strict=True):
        if file[1]:
            assert float(one["truth"]) == pytest.approx(test.labels[i], rel=1e-2)
            assert float(one["guess"]) == pytest.approx(logits[i, 0], rel=1e-2)
            assert one["probability"] is None
        else:
            assert one["truth"] == made.task.classes[test.labels[i]] != one["guess"]
            assert one["probability"] == pytest.approx(-size[i])
    pairs = report_data.confusion(logits, test.labels, len(made.task.classes))
    expected = (count, 2) if file[1] else (2, 2)
    assert pairs.shape == expected


def test_a_search_follows_texts_to_their_final_trainings(tmp_path):
    source = write(tmp_path / "sayings.csv", rows(False))
    rounds = {"greedy": {"max_items": 1}, "baselines": {"rows": ("full",)}}
    path = config(tmp_path, given(source, train_steps=3, **rounds))
    folder = tmp_path / "run"
    assert search_command.main([f"--config={path}", f"--workdir={folder}"]) == 0
    content = json.loads((folder / "search.json").read_text())
    assert content["items"] == ["embed", "block01", "block02"]
    assert content["metric"] == "accuracy" and content["final"]["rows"]
    with Image.open(folder / "search.png") as picture:
        picture.verify()


def test_a_comparison_holds_profiles_and_trainings_of_numbers(tmp_path):
    source = write(tmp_path / "sayings.csv", rows(True))
    grid = {"methods": {"bias": {"method": {"name": "bias"}}}, "profiles": {}}
    more = {"train_steps": 2, "grid": {**grid, "seeds": (0,)}}
    path = config(tmp_path, given(source, True, **more))
    folder = tmp_path / "all"
    assert compare_command.main([f"--config={path}", f"--workdir={folder}"]) == 0
    content = json.loads((folder / "compare.json").read_text())
    (row,) = content["rows"]
    assert row["method"] == "bias" and -1 <= row["mean"] <= 1
    (found,) = content["profiles"]
    (file,) = folder.rglob("profile.json")
    inside = json.loads(file.read_text())
    assert inside["metric"] == "pearson" and inside["best"] == found["best"]
    assert (folder / "pareto.png").exists()


def tokenizer(folder, words):
    """A folder of a network of 8 words whose tokenizer knows `words`."""
    folder.mkdir()
    names = {f"w{number}": number for number in range(words)} | {"[UNK]": words}
    model = tokenizers.models.WordLevel(names, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
    sizes = {
        "model_type": "bert",
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 4,
        "vocab_size": 8,
        "max_position_embeddings": 16,
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    return {"name": "bert", "weights": str(folder), "length": 8}


DRAWN = {"name": "structured", "examples": 40, "image_size": 16}
WRONG = {
    "truncated": lambda file: (
        file.write_text('text,label\nfine,a\n"cut off'),
        "sayings.csv:3: unexpected end of data",
    ),
    "cut row": lambda file: (
        file.write_text("text,label\nfine,a\nhalf"),
        "sayings.csv:3: 1 fields; the first line names 2",
    ),
    "empty": lambda file: (file.write_text(""), "sayings.csv is empty"),
    "no rows": lambda file: (file.write_text("text,label\n"), "csv has no rows"),
    "latin": lambda file: (
        file.write_bytes("text,label\nna\xefve,a\n".encode("latin-1")),
        "sayings.csv:2: byte 0xef is not UTF-8; save the file as UTF-8",
    ),
    "number": lambda file: (
        {"task": {"name": "text_file", "path": str(file), "regression": True}},
        "sayings.csv:2: label 'dull' is no finite number",
    ),
    "no such column": lambda file: (
        {"task": {"name": "text_file", "path": str(file), "text": "txt"}},
        "sayings.csv:1: no column named 'txt'; did you mean 'text'",
    ),
    "unknown label": lambda file: (
        {"task": {"name": "text_file", "path": str(parted(file))}},
        "test.csv:2: label 'wize' is not in training; did you mean 'wise'",
    ),
    "images": lambda file: (
        {"task": DRAWN},
        "task structured has images; backbone bert takes texts",
    ),
    "texts": lambda file: (
        {"backbone": {"name": "mlp", "image_size": 8, "widths": (4,)}},
        "task text_file has texts; backbone mlp takes images",
    ),
    "augmentation": lambda file: (
        {"augment": {"flip": True}},
        "texts are not augmented",
    ),
    "vocabulary": lambda file: (
        {"backbone": tokenizer(file.parent / "net", 11)},
        "tokenizer.json gives '[UNK]' the number 11; the embedding table has 8 rows",
    ),
    "no room": lambda file: (
        {"backbone": {**BERT, "length": 17}},
        "length 17; there are positions for 16 tokens",
    ),
}


def parted(file):
    """A folder with a label in `test` that is not in `train`."""
    folder = file.parent / "parts"
    folder.mkdir()
    write(folder / "train.csv", rows(False))
    write(folder / "test.csv", [("hm", "wize")])
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_one_line_exit_2_and_nothing_written(what, tmp_path, capsys):
    source = write(tmp_path / "sayings.csv", rows(False))
    change, message = WRONG[what](source)
    more = change if isinstance(change, dict) else {}
    path = config(tmp_path, given(source, **more))
    folder = tmp_path / "new"
    assert train_command.main([f"--config={path}", f"--workdir={folder}"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not folder.exists()
