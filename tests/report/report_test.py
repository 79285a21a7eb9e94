import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from subtune_jax import report
from subtune_jax.report import pictures, regressions, text_mistakes, themes


def result(**more):
    return {
        "task": "elpv",
        "backbone": "efficientnet",
        "method": "gps",
        "seed": 0,
        "devices": 1,
        "trainable": {
            "selected": 900, "extras": 100, "head": 20, "base": 10**6, "fraction": 0.001
        },
        "metrics": {"name": "accuracy", "validation": 0.9, "test": 0.875},
        "cost": {"train_steps": 200, "delta_bytes": 290_869},
        "frozen_unchanged": True,
        "config": {"seed": 0},
        **more,
    }  # fmt: skip


RECORDS = [{"step": s, "split": "train", "loss": 1 / (s + 1)} for s in range(50)] + [
    {"step": s, "split": "validation", "accuracy": s / 50} for s in (10, 20, 30)
]
SHARES = {"stem": (0, 900), "block01": (30, 4000), "head": (20, 20)}


def mistake(truth="functional", guess="defective"):
    image = np.zeros((8, 8, 3), np.uint8)
    return {"image": image, "truth": truth, "guess": guess, "probability": 0.9}


def confusion(count):
    return np.eye(count, dtype=int) * 9 + 1


class Page(html.parser.HTMLParser):
    """Open tags, image sources and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.sources, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "source"):
            self.stack.append(tag)
        values = dict(attributes)
        self.sources += [
            values[key] for key in ("src", "srcset", "href") if key in values
        ]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_its_pictures_and_names_the_result(tmp_path):
    probe = {"test": 0.8, "validation": 0.7}
    paths = report.write(
        tmp_path, result(linear_probe=probe), RECORDS, SHARES,
        confusion(2), ["functional", "defective"], [mistake()],
    )  # fmt: skip
    assert paths == (tmp_path / "report.html", tmp_path / "report.png")
    page = Page(paths[0].read_text())
    assert page.stack == []
    assert len(page.sources) == 8  # four pictures, light and dark
    for source in page.sources:
        content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        Image.open(io.BytesIO(content)).verify()
    for text in ("elpv / efficientnet / gps", "0.875", "+0.075", "0.1 %", "291 kB"):
        assert text in page.text, text
    assert "unchanged" in page.text and "functional taken for defective" in page.text
    with Image.open(paths[1]) as overview:
        assert overview.size == (1690, 1300)


def test_the_page_says_what_each_number_is(tmp_path):
    metrics = {"name": "accuracy", "validation": 0.9, "test": 0.875, "constant": 0.5}
    cost = {"step_flops": 2.5e9, "train_seconds": 1.25, "a_new_cost": 3}
    paths = report.write(
        tmp_path, result(metrics=metrics, cost=cost), RECORDS, SHARES,
        confusion(2), ["functional", "defective"], [mistake()],
    )  # fmt: skip
    text = Page(paths[0].read_text()).text
    for words in (
        "a constant answer reaches 0.500",
        "one training step, floating-point operations2,500,000,000",
        "training, seconds1.25",
        "a new cost3",
        "elements selected by the method900",
    ):
        assert words in text, words


@pytest.mark.parametrize("constant", [None, float("nan")])
def test_a_constant_that_is_no_number_is_not_shown(tmp_path, constant):
    metrics = {"name": "pearson", "validation": 0.9, "test": 0.8, "constant": constant}
    paths = report.write(
        tmp_path, result(metrics=metrics), RECORDS, SHARES, np.eye(2), ["x"], []
    )
    assert "constant answer" not in paths[0].read_text()


@pytest.mark.parametrize("count", [1, 2, 13, 41, 200])
def test_any_number_of_classes_is_drawn(tmp_path, count):
    figure = themes.canvas(4, 4)
    pictures.confusion(figure, confusion(count), [f"class {i}" for i in range(count)])
    themes.png(figure)
    labels = figure.axes[0].get_xticklabels()
    assert len(labels) == (count if count <= 40 else len(range(0, count, 10)))
    assert len(figure.axes[0].texts) == (count**2 if count <= 12 else 0)


def test_a_run_with_nothing_to_show_has_a_report(tmp_path):
    bare = {"metrics": {"name": "accuracy", "validation": None, "test": None}}
    report.write(tmp_path, bare, [], {}, np.zeros((1, 1), int), ["only"], [])
    text = (tmp_path / "report.html").read_text()
    assert Page(text).stack == [] and "not checked" in text


def test_names_are_escaped(tmp_path):
    classes = ["<script>alert(1)</script>", "$x_{&$"]
    report.write(
        tmp_path, result(task='"<b>'), RECORDS, {"$_{<i>$": (1, 2)},
        confusion(2), classes, [mistake(*classes)],
    )  # fmt: skip
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"<script|<b>&quot;|<i>|\"<b>", text.split("</style>")[1])
    assert Page(text).stack == []
    assert classes[0] in Page(text).text


def wrong_text(text, **more):
    return {"text": text, "truth": "a", "guess": "b", "probability": 0.9, **more}


def test_texts_stand_in_the_page_escaped_and_cut(tmp_path):
    odd = "<script>alert(1)</script> 漢字 🙂 $x_{&$ \x07 \u202e"
    shown = [
        wrong_text(odd, pair="the\nother  one"),
        wrong_text("word " * 999),
        wrong_text(""),
        wrong_text("x" * 999, truth="漢字", guess="$_{<i>"),
    ]
    paths = report.write(
        tmp_path, result(), RECORDS, SHARES, confusion(2), ["a", "b"], shown
    )
    text = paths[0].read_text("utf-8")
    page = Page(text)
    assert page.stack == [] and len(page.sources) == 6  # a table and no picture
    assert not re.search("<script|<i>", text)
    assert f"{odd} ‖ the other one" in page.text
    assert "guess b (0.90), truth a" in page.text
    assert "guess $_{<i> (0.90), truth 漢字" in page.text
    longest = max(re.findall("(?:word )+", page.text), key=len)
    assert 390 < len(longest) <= 400
    assert "x" * 399 + "…" in page.text and "x" * 400 not in page.text
    with Image.open(paths[1]) as overview:
        overview.verify()


def test_texts_in_a_picture_keep_to_their_lines():
    figure = themes.canvas(4, 4)
    examples = [wrong_text("word " * 99), wrong_text(""), wrong_text("x" * 99)]
    text_mistakes.draw(figure, examples, "mistakes")
    (axes,) = figure.axes
    drawn = [text.get_text() for text in axes.texts]
    assert drawn[::2] == ["guess b (0.90), truth a"] * 3
    lines = drawn[1].split("\n")
    assert len(lines) == text_mistakes.LINES and lines[-1].endswith("…")
    assert max(map(len, lines)) <= text_mistakes.LINE
    assert drawn[3] == "(an empty text)"
    figure = themes.canvas(4, 4)
    text_mistakes.draw(figure, [], "mistakes")
    assert figure.texts[0].get_text() == "no mistakes to show"


def test_a_regression_shows_predictions_against_the_truth(tmp_path):
    points = np.random.default_rng(0).normal(size=(30, 2))
    figure = themes.canvas(4, 4)
    regressions.pairs(figure, np.concatenate([points, [[0, np.nan]]]), "rating")
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), points)
    assert axes.get_xlim() == axes.get_ylim()
    shown = [wrong_text("fine", truth="1.2", guess="0.3", probability=None)]
    paths = report.write(tmp_path, result(), RECORDS, SHARES, points, ["rating"], shown)
    text = paths[0].read_text("utf-8")
    assert "Predictions on the test split against the truth" in text
    assert "Confusion matrix" not in text and "frequent confusions" not in text
    assert "guess 0.3, truth 1.2" in Page(text).text and "largest errors" in text
    one = {"image": np.zeros((8, 8, 3), np.uint8), **shown[0]}
    del one["text"]
    report.write(tmp_path, result(), [], {}, points[:1], ["rating"], [one])
    assert "Images of the largest errors" in paths[0].read_text("utf-8")
    regressions.pairs(themes.canvas(4, 4), points[:0], "rating")


@pytest.mark.parametrize(
    "shares, scale",
    [
        ({"a": (1, 1000), "b": (1000, 1000), "c": (0, 10)}, "log"),
        ({"a": (500, 1000), "b": (1000, 1000)}, "linear"),
        ({"a": (0, 1000)}, "linear"),
    ],
)
def test_bars_are_as_long_as_the_shares(shares, scale):
    figure = themes.canvas(4, 4)
    pictures.blocks(figure, shares)
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    trained = axes.patches[len(shares) :]
    for bar, (part, whole) in zip(trained, shares.values(), strict=True):
        assert bar.get_width() == pytest.approx(part / whole - bar.get_x() * (part > 0))


def test_the_smooth_curve_is_a_running_mean():
    values = np.random.default_rng(0).normal(size=100)
    expected = [values[max(i - 2, 0) : i + 3].mean() for i in range(100)]
    np.testing.assert_allclose(pictures._smooth(values), expected, rtol=1e-9)
