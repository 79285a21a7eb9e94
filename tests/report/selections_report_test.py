"""Pictures of masks show what was counted, at the size and on the paper stated."""

import inspect
import io

import numpy as np
import pytest
from PIL import Image

from subtune_jax.report import kernels, selections, themes

DOTS = 130  # pixels an inch


def size(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


def drawn(monkeypatch, draw, *arguments):
    """The figure that `draw` would have written."""
    kept = []
    monkeypatch.setattr(themes, "png", lambda figure: kept.append(figure) or b"")
    draw(*arguments)
    return kept[0]


def heights(axes, horizontal=False):
    """Label -> the lengths of its bars."""
    along = "get_width" if horizontal else "get_height"
    return {
        bars.get_label(): [getattr(bar, along)() for bar in bars]
        for bars in axes.containers
    }


SELECTED = {"stem": (3, 4), "b1": (0, 50), "b2": (5, 100)}
MASS = {"stem": 0.5, "b1": 0.2, "b2": 0.3}
PLAIN = np.random.default_rng(9).random((12, 20))
MARKED = PLAIN > 0.9
PICTURES = {
    "shares": lambda theme: selections.shares({"a": SELECTED}, {"s": MASS}, theme),
    "neurons": lambda theme: selections.neurons({"a": np.array([0, 1, 9])}, theme),
    "kernel": lambda theme: kernels.kernel(PLAIN, {"a": MARKED}, "k", theme),
    "overlaps": lambda theme: selections.overlaps(
        ["a", "b"], np.eye(2), np.eye(2), theme
    ),
}
SIZES = {
    "shares": (10, 1.3 + 0.28 * 3),
    "neurons": (10, 3.6),
    "kernel": (10, 3.0),
    "overlaps": (2.5 + 2, 1.1 + 1),
}


@pytest.mark.parametrize("theme", [themes.LIGHT, themes.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_png_of_the_stated_size_on_paper_of_its_theme(name, theme):
    content = PICTURES[name](theme)
    expected = [DOTS * inches for inches in SIZES[name]]
    assert np.allclose(size(content), expected, atol=1)
    with Image.open(io.BytesIO(content)) as image:
        corner = image.convert("RGB").getpixel((0, 0))
    assert corner == tuple(bytes.fromhex(theme.paper[1:]))


@pytest.mark.parametrize(("rows", "high"), [(1, 3.0), (40, 4.6), (500, 8.0)])
def test_a_kernel_is_as_high_as_its_inputs_need(rows, high):
    scores = np.ones((rows, 3))
    content = kernels.kernel(scores, {"a": scores > 2}, "k")
    assert np.allclose(size(content), (DOTS * 10, DOTS * high), atol=1)


def test_bars_of_blocks_are_as_long_as_the_counts_say(monkeypatch):
    choices = {"a": SELECTED, "b": {"stem": (2, 4), "b1": (10, 50), "b2": (9, 100)}}
    figure = drawn(monkeypatch, selections.shares, choices, {"s": MASS})
    left, right = figure.axes
    lengths = heights(left, horizontal=True)
    assert lengths["a"] == pytest.approx([3 / 4, 0, 5 / 100])
    assert lengths["b"] == pytest.approx([2 / 4, 10 / 50, 9 / 100])
    assert heights(right, horizontal=True)["s"] == pytest.approx([0.5, 0.2, 0.3])
    (strokes,) = right.collections
    ends = [segment[0, 0] for segment in strokes.get_segments()]
    assert ends == pytest.approx([4 / 154, 50 / 154, 100 / 154])
    assert left.get_xscale() == "linear"


def test_bars_of_shares_far_apart_end_at_them_on_a_logarithmic_axis(monkeypatch):
    choices = {"a": {"stem": (3, 4), "b1": (0, 50), "b2": (1, 100)}}
    left = drawn(monkeypatch, selections.shares, choices, {"s": MASS}).axes[0]
    bars = left.containers[0]
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert ends[0] == pytest.approx(3 / 4) and ends[2] == pytest.approx(1 / 100)
    assert bars[1].get_width() == 0  # nothing was selected: no bar
    assert left.get_xscale() == "log" and left.get_xlim()[0] == bars[0].get_x()


def test_bars_of_neurons_are_as_high_as_the_histogram(monkeypatch):
    choices = {"one": np.ones(7, int), "all": np.array([0, 0, 0, 2, 3, 4, 16])}
    axes = drawn(monkeypatch, selections.neurons, choices).axes[0]
    assert heights(axes) == {"one": [0, 7], "all": [3, 0, 1, 2, 0, 1]}
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["0", "1", "2", "3–4", "5–8", "9–16"]


def test_marks_stand_on_the_selected_elements_of_a_convolution(monkeypatch):
    scores = np.random.default_rng(10).random((2, 3, 4, 5))
    scores[0, 0, 0, 0] = 0
    masks = {"a": scores > 0.8, "b": scores > 0.9}
    axes = drawn(monkeypatch, kernels.kernel, scores, masks, "k").axes[0]
    for line, flags in zip(axes.lines, masks.values(), strict=True):
        places = {
            (neuron, (i * 3 + j) * 4 + k)
            for i, j, k, neuron in np.ndindex(scores.shape)
            if flags[i, j, k, neuron]
        }
        assert set(zip(*line.get_data(), strict=True)) == places
        assert line.get_label().endswith(f": {len(places)}")
    image = axes.images[0].get_array()
    assert image.shape == (24, 5)
    assert image[0, 0] == pytest.approx(scores.max() / 1e4)
    assert image[23, 4] == pytest.approx(scores[1, 2, 3, 4])


def test_a_kernel_of_zeros_is_drawn():
    content = kernels.kernel(np.zeros((3, 4)), {"a": np.zeros((3, 4), bool)}, "k")
    assert size(content) == (1300, 390)


def test_cells_hold_the_overlap_and_that_by_chance(monkeypatch):
    overlap = np.array([[1.0, 0.25], [0.25, 1.0]])
    chance = np.array([[0.5, 0.125], [0.125, 0.5]])
    figure = drawn(monkeypatch, selections.overlaps, ["x", "y"], overlap, chance)
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    shared = "0.25\nchance 0.12"
    assert cells == {(0, 0): "1.00", (1, 0): shared, (0, 1): shared, (1, 1): "1.00"}


REFUSED = {
    "to draw; there must be 1 to 3": lambda: selections.neurons({}),
    "a, b, c, d to draw": lambda: selections.neurons(dict.fromkeys("abcd")),
    "there must be 1 to 2": lambda: kernels.kernel(
        PLAIN, dict.fromkeys("abc", MARKED), "k"
    ),
    "a kernel is": lambda: kernels.kernel(np.ones(3), {"a": np.ones(3)}, "k"),
    r"mask 'a' is \(2,\)": lambda: kernels.kernel(PLAIN, {"a": np.ones(2)}, "k"),
    "'s' has the blocks": lambda: selections.shares({"a": SELECTED}, {"s": {}}),
    "for 1 names both are": lambda: selections.overlaps(["a"], np.eye(2), np.eye(2)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line(words):
    with pytest.raises(ValueError, match=words) as caught:
        REFUSED[words]()
    assert "\n" not in str(caught.value)


def test_every_picture_is_tested():
    names = [
        name
        for module in (selections, kernels)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(names) == sorted(PICTURES)
