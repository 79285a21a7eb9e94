"""Pictures of moving masks: what they count, by hand, and that it is what is drawn."""

import inspect
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from subtune_jax.report import motion, themes

DOTS = 130  # pixels an inch
BLOCKS = ("stem", "b10", "b2", "gone", "top")
SHAPES = {
    "b10/kernel": (4, 3),
    "b2/conv/kernel": (2, 2, 3, 5),
    "b2/bias": (5,),
    "stem/kernel": (3, 2),
    "top/scale": (6,),
}
STEPS = (4, 8, 13)


def run(seed, steps=STEPS, rate=0.4):
    draw = np.random.default_rng(seed)
    return {s: {p: draw.random(x) < rate for p, x in SHAPES.items()} for s in steps}


def drawn(monkeypatch, draw, *arguments):
    """The figure that `draw` would have written."""
    kept = []
    monkeypatch.setattr(themes, "png", lambda figure: kept.append(figure) or b"")
    draw(*arguments)
    return kept[0]


def test_shares_are_counted_by_block_and_step_in_the_order_of_the_run():
    masks = run(0)
    shares = motion.shares(masks, BLOCKS)
    assert list(shares) == ["stem", "b10", "b2", "top"]
    for block, by_step in shares.items():
        for step, share in zip(STEPS, by_step, strict=True):
            part = whole = 0
            for path, flags in masks[step].items():
                if path.split("/")[0] == block:
                    for flag in flags.ravel().tolist():
                        part, whole = part + flag, whole + 1
            assert share == pytest.approx(part / whole)


@pytest.mark.parametrize("before", [True, False])
def test_jaccards_are_those_of_the_mask_before_or_of_the_first(before):
    masks = run(1)
    indices = motion.jaccards(masks, before)
    assert list(indices) == list(STEPS[1:])
    for one, two in itertools.pairwise(STEPS):
        other = masks[one if before else STEPS[0]]
        both = either = 0
        lucky, sizes = 0.0, 0
        for path, flags in masks[two].items():
            own, others = flags.ravel().tolist(), other[path].ravel().tolist()
            both += sum(a and b for a, b in zip(own, others, strict=True))
            either += sum(a or b for a, b in zip(own, others, strict=True))
            lucky += sum(own) * sum(others) / len(own)
            sizes += sum(own) + sum(others)
        assert indices[two] == pytest.approx((both / either, lucky / (sizes - lucky)))


def test_chance_is_what_random_masks_of_these_sizes_share_on_average():
    draw = np.random.default_rng(2)
    values = []
    for _ in range(300):
        pair = {}
        for step, count in ((1, 300), (2, 500)):
            flags = np.zeros(1000, bool)
            flags[draw.permutation(1000)[:count]] = True
            pair[step] = {"a/w": flags.reshape(40, 25)}
        values.append(motion.jaccards(pair, before=True)[2])
    own, chance = np.array(values).T
    assert np.ptp(chance) < 1e-12
    assert own.mean() == pytest.approx(chance[0], abs=5 * own.std() / 300**0.5 + 1e-3)


def test_masks_of_nothing_agree():
    nothing = {step: {"a/w": np.zeros((2, 2), bool)} for step in (1, 2)}
    assert motion.jaccards(nothing, before=True) == {2: (1.0, 1.0)}


def test_times_count_the_masks_that_selected_each_element():
    masks = run(3)
    counts = motion.times(masks, "b2/conv/kernel")
    for place in np.ndindex(SHAPES["b2/conv/kernel"]):
        hits = sum(bool(masks[step]["b2/conv/kernel"][place]) for step in STEPS)
        assert counts[place] == hits


def test_chance_of_counts_is_the_sum_over_all_outcomes():
    rates, expected = [0.2, 0.5, 0.9], np.zeros(4)
    for outcome in itertools.product((0, 1), repeat=3):
        odds = [r if o else 1 - r for r, o in zip(rates, outcome, strict=True)]
        expected[sum(outcome)] += np.prod(odds)
    np.testing.assert_allclose(motion.chance(rates), expected, atol=1e-15)


RUNS = {"dense": run(4), "sparse": run(5, range(1, 31), 0.1)}
KERNEL = "b10/kernel"
PICTURES = {
    "by_block": lambda theme: motion.by_block(RUNS, BLOCKS, theme),
    "overlaps": lambda theme: motion.overlaps(RUNS, theme),
    "often": lambda theme: motion.often(RUNS, KERNEL, theme),
}
SIZES = {
    "by_block": (10, 1.4 + 0.22 * 4),
    "overlaps": (10, 3.4),
    "often": (10, 0.3 + 2.7 * 2),
}


@pytest.mark.parametrize("theme", [themes.LIGHT, themes.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_png_of_the_stated_size_on_paper_of_its_theme(name, theme):
    with Image.open(io.BytesIO(PICTURES[name](theme))) as image:
        assert image.format == "PNG"
        corner, size = image.convert("RGB").getpixel((0, 0)), image.size
    assert np.allclose(size, [DOTS * inches for inches in SIZES[name]], atol=1)
    assert corner == tuple(bytes.fromhex(theme.paper[1:]))


def test_colours_of_blocks_are_their_shares(monkeypatch):
    figure = drawn(monkeypatch, motion.by_block, RUNS, BLOCKS)
    for axes, (name, masks) in zip(figure.axes, RUNS.items(), strict=False):
        (image,) = axes.images
        expected = np.array(list(motion.shares(masks, BLOCKS).values()))
        np.testing.assert_allclose(image.get_array(), expected)
        assert image.get_clim() == (0, pytest.approx(expected.max()))
        assert axes.get_title(loc="left") == name
        marks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        named = {int(place): label.get_text() for place, label in marks}
        assert len(named) <= 8
        steps = list(masks)
        assert named == {place: str(steps[place]) for place in named}
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["stem", "b10", "b2", "top"]


def test_blocks_without_masks_in_a_run_are_blank(monkeypatch):
    few = {step: {KERNEL: mask[KERNEL]} for step, mask in RUNS["dense"].items()}
    figure = drawn(monkeypatch, motion.by_block, RUNS | {"few": few}, BLOCKS)
    image = np.ma.filled(figure.axes[2].images[0].get_array(), np.nan)
    assert np.isnan(image[[0, 2, 3]]).all()
    np.testing.assert_allclose(image[1], [mask[KERNEL].mean() for mask in few.values()])


def test_lines_of_overlaps_are_the_indices_and_dotted_ones_chance(monkeypatch):
    figure = drawn(monkeypatch, motion.overlaps, RUNS)
    for axes, before in zip(figure.axes, (True, False), strict=True):
        lines = iter(axes.lines)
        for masks in RUNS.values():
            indices = motion.jaccards(masks, before)
            for place in (0, 1):
                x, y = next(lines).get_data()
                assert list(x) == list(indices)
                assert list(y) == [pair[place] for pair in indices.values()]
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["dense", "sparse", "dotted: random masks as large"]


def test_a_map_and_a_histogram_show_how_often_elements_were_selected(monkeypatch):
    figure = drawn(monkeypatch, motion.often, RUNS, "b2/conv/kernel")
    panels = [axes for axes in figure.axes if axes.images or axes.containers]
    maps = [axes for axes in panels if axes.images]
    bars = [axes for axes in panels if axes.containers]
    for left, right, masks in zip(maps, bars, RUNS.values(), strict=True):
        hits = motion.times(masks, "b2/conv/kernel")
        image = left.images[0]
        np.testing.assert_array_equal(image.get_array(), hits.reshape(12, 5))
        assert image.get_clim() == (0, len(masks))
        heights = [bar.get_height() for bar in right.containers[0]]
        counts = [int((hits == n).sum()) for n in range(len(masks) + 1)]
        assert heights == counts and sum(counts) == 60
        rates = [mask["b2/conv/kernel"].mean() for mask in masks.values()]
        expected = 60 * motion.chance(rates)
        dots = right.lines[0].get_ydata()
        visible = expected >= 0.5
        np.testing.assert_allclose(dots[visible], expected[visible])
        assert np.isnan(dots[~visible]).all()


def test_of_a_large_kernel_the_map_has_a_corner_and_the_histogram_all(monkeypatch):
    flags = np.random.default_rng(6).random((130, 300)) < 0.5
    figure = drawn(
        monkeypatch, motion.often, {"a": {1: {"w/kernel": flags}}}, "w/kernel"
    )
    left, right = figure.axes[:2]
    np.testing.assert_array_equal(left.images[0].get_array(), flags[:128, :256])
    assert sum(bar.get_height() for bar in right.containers[0]) == flags.size


ONE = {"a": run(7, (1,))}
REFUSED = {
    "no runs to draw; there must be 1 to 3": lambda: motion.overlaps({}),
    "a, b, c, d to draw": lambda: motion.by_block(
        dict.fromkeys("abcd", run(8)), BLOCKS
    ),
    "'a' has 1 steps; 2 are the least": lambda: motion.overlaps(ONE),
    "'run' has 0 steps": lambda: motion.shares({}, BLOCKS),
    "is in none of the blocks": lambda: motion.by_block(ONE, ["stem"]),
    "no leaf 'b3/kernel' in the masks": lambda: motion.often(ONE, "b3/kernel"),
    r"'b2/bias' is \(5,\); a kernel is": lambda: motion.often(ONE, "b2/bias"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line(words):
    with pytest.raises(ValueError, match=words) as caught:
        REFUSED[words]()
    assert "\n" not in str(caught.value)


def test_every_picture_is_tested():
    names = [
        name
        for name, function in inspect.getmembers(motion, inspect.isfunction)
        if function.__module__ == motion.__name__
        and "theme" in inspect.signature(function).parameters
    ]
    assert sorted(n for n in names if not n.startswith("_")) == sorted(PICTURES)
