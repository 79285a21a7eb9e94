import inspect
import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from subtune_jax.report import counts, kernels, selections, themes
from subtune_jax.selection import choose

DOTS = 130  # pixels an inch
BLOCKS = ("stem", "b10", "b2", "gone", "top")
SHAPES = {
    "b10/dense/kernel": (4, 3),
    "b2/conv/kernel": (2, 2, 3, 5),
    "b2/bias": (5,),
    "stem/kernel": (3, 2),
    "top/scale": (6,),
}


def arrays(seed, draw=np.random.Generator.random):
    generator = np.random.default_rng(seed)
    return {path: draw(generator, shape) for path, shape in SHAPES.items()}


def flags(seed, rate=0.4):
    return {path: x < rate for path, x in arrays(seed).items()}


def size(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


def drawn(monkeypatch, draw, *given):
    """The figure that `draw` would have written."""
    kept = []
    monkeypatch.setattr(themes, "png", lambda figure: kept.append(figure) or b"")
    draw(*given)
    return kept[0]


def heights(axes, horizontal=False):
    """Label -> the lengths of its bars."""
    along = "get_width" if horizontal else "get_height"
    return {
        bars.get_label(): [getattr(bar, along)() for bar in bars]
        for bars in axes.containers
    }


def test_selected_elements_are_counted_by_block_in_the_given_order():
    params, chosen = arrays(0), flags(1)
    expected = {}
    for block in ("stem", "b10", "b2", "top"):
        part = whole = 0
        for path in SHAPES:
            if path.split("/")[0] == block:
                for flag in chosen[path].ravel():
                    part, whole = part + int(flag), whole + 1
        expected[block] = (part, whole)
    found = counts.selected(params, chosen, BLOCKS)
    assert found == expected and list(found) == list(expected)


def test_a_single_flag_counts_for_all_it_stands_for():
    params = {"a": {"w": np.ones((2, 3)), "b": np.ones(4)}}
    mask = {"a": {"w": np.array([True, False, True]), "b": np.True_}}
    assert counts.selected(params, mask, ["a"]) == {"a": (8, 10)}


def test_mass_is_the_share_of_the_sum_and_adds_up_to_one():
    scores = {path: x.astype(np.float32) for path, x in arrays(2).items()}
    total, sums = 0.0, dict.fromkeys(("stem", "b10", "b2", "top"), 0.0)
    for path, score in scores.items():
        for value in score.ravel().tolist():
            sums[path.split("/")[0]] += value
            total += value
    found = counts.mass(scores, BLOCKS)
    assert list(found) == list(sums)
    for block, share in found.items():
        assert share == pytest.approx(sums[block] / total, rel=1e-9)
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "words"), [(-1, "0 or more"), (np.nan, "finite"), (np.inf, "finite")]
)
def test_mass_refuses_what_has_no_shares(value, words):
    with pytest.raises(ValueError, match=f"scores of 'a'.*{words}"):
        counts.mass({"a": np.array([1.0, value])}, ["a"])
    with pytest.raises(ValueError, match="all 0"):
        counts.mass({"a": np.zeros(2)}, ["a"])


def test_an_array_of_no_block_is_refused():
    with pytest.raises(ValueError, match="'b2/bias' is in none of the blocks"):
        counts.selected(arrays(0), flags(0), ["stem", "b10", "top"])


def test_inputs_are_counted_by_neuron_over_the_last_axis():
    chosen = flags(3)
    expected = []
    for path in sorted(SHAPES):
        if len(SHAPES[path]) > 1:
            for neuron in range(SHAPES[path][-1]):
                picks = chosen[path][..., neuron].ravel()
                expected.append(sum(int(flag) for flag in picks))
    assert counts.inputs(chosen).tolist() == expected


def test_inputs_follow_the_neuron_axes():
    chosen = {"query/kernel": np.random.default_rng(4).random((5, 2, 3)) < 0.5}
    found = counts.inputs(chosen, {"query/kernel": (1, 2)})
    cube = chosen["query/kernel"]
    assert found.tolist() == [
        sum(bool(cube[i, head, at]) for i in range(5))
        for head in range(2)
        for at in range(3)
    ]


def test_no_neurons_have_no_inputs():
    assert counts.inputs({"bias": np.ones(3, bool)}).size == 0
    assert counts.histogram(counts.inputs({})) == {"0": 0}


def test_the_best_k_of_each_neuron_give_each_k():
    scores = {p: x for p, x in arrays(5).items() if x.ndim > 1}
    assert set(counts.inputs(choose.top_per_neuron(scores, 2)).tolist()) == {2}


@given(npst.arrays(int, st.integers(0, 30), elements=st.integers(0, 70)))
def test_a_histogram_counts_every_neuron_once_in_its_bin(neurons):
    found = counts.histogram(neurons)
    assert sum(found.values()) == len(neurons)
    for name, number in found.items():
        low, _, high = name.partition("-")
        inside = [n for n in neurons.tolist() if int(low) <= n <= int(high or low)]
        assert number == len(inside)
    ends = [[int(n) for n in name.split("-")] for name in found]
    for before, after in itertools.pairwise(ends[1:]):
        assert after[0] == before[-1] + 1 and after[-1] == 2 * before[-1]


def test_overlaps_are_those_of_every_pair():
    chosen = {"x": flags(6), "y": flags(7, 0.2), "z": flags(8, 0.7)}
    overlap, chance = counts.crossed(chosen)
    for i, a in enumerate(chosen.values()):
        for j, b in enumerate(chosen.values()):
            sizes, shared, lucky = [0, 0], 0, 0.0
            for path in SHAPES:
                one, other = a[path].ravel().tolist(), b[path].ravel().tolist()
                sizes[0], sizes[1] = sizes[0] + sum(one), sizes[1] + sum(other)
                shared += sum(p and q for p, q in zip(one, other, strict=True))
                lucky += sum(one) * sum(other) / len(one)
            assert overlap[i, j] == pytest.approx(shared / max(sizes))
            assert chance[i, j] == pytest.approx(lucky / max(sizes))


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
    found = heights(left, horizontal=True)
    assert found["a"] == pytest.approx([3 / 4, 0, 5 / 100])
    assert found["b"] == pytest.approx([2 / 4, 10 / 50, 9 / 100])
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
    chosen = {"a": scores > 0.8, "b": scores > 0.9}
    axes = drawn(monkeypatch, kernels.kernel, scores, chosen, "k").axes[0]
    for line, flags in zip(axes.lines, chosen.values(), strict=True):
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


def test_cells_hold_the_overlap_and_chance_beside_it(monkeypatch):
    overlap = np.array([[1.0, 0.25], [0.25, 1.0]])
    chance = np.array([[0.5, 0.125], [0.125, 0.5]])
    figure = drawn(monkeypatch, selections.overlaps, ["x", "y"], overlap, chance)
    found = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    shared = "0.25\nchance 0.12"
    assert found == {(0, 0): "1.00", (1, 0): shared, (0, 1): shared, (1, 1): "1.00"}


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
    found = [
        name
        for module in (selections, kernels)
        for name, one in inspect.getmembers(module, inspect.isfunction)
        if one.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(found) == sorted(PICTURES)
