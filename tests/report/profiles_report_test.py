"""Any profile, search and line of sizes is drawn; points stand where rows say."""

import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from subtune_jax.report import marks, profiles, searches, sizes, themes
from subtune_jax.report.themes import LIGHT

COST = {"trainings": 54, "train_steps": 5400, "flops": 1e15, "seconds": 192.0}


def row(blocks, mean=0.5, steps=100, count=3, **more):
    values = [mean + 0.01 * (i - (count - 1) / 2) for i in range(count)]
    std = float(np.std(values, ddof=1)) if count > 1 else 0.0
    cost = {"trainable": 10 * len(blocks), "step_flops": 1e9, "seconds": 2.0}
    means = {"values": values, "mean": mean, "std": std, "steps": steps}
    return {"blocks": list(blocks), **means, **cost, **more}


def profile(rows, **more):
    about = {"task": "elpv", "backbone": "vit", "metric": "accuracy"}
    about["split"] = "3 folds"
    kind = {"reinitialise": "nothing", "cost": COST, "best": ["b0"]}
    return {**about, **kind, "rows": rows, **more}


def names(count):
    return [f"b{number}" for number in range(count)]


def rows_of(blocks, lengths=(1,), pairs=False, full=True, **more):
    sets = [(), *itertools.combinations(blocks, 2 if pairs else 0)]
    for length in lengths:
        last = len(blocks) - length + 1
        sets += [tuple(blocks[at : at + length]) for at in range(last)]
    sets += [tuple(blocks)] if full else []
    sets = sorted(dict.fromkeys(sets), key=len)
    return [row(one, 0.5 + 0.01 * at, **more) for at, one in enumerate(sets)]


def search(items, choices, back=False, refused=True, tie=False, **more):
    """A search that adds (or removes) `choices` in that order."""
    current, rounds, level = list(items) if back else [], [], 0.5
    start = row(current)
    for at, best in enumerate(choices):
        sets = [
            [item for item in items if (item in current) != (item == moved)]
            for moved in items
            if (moved in current) == back
        ]
        after = [item for item in items if (item in current) != (item == best)]
        level += 0 if tie else 0.01
        candidates = [row(s, level if s == after or tie else 0.4) for s in sets]
        kept = not (refused and at == len(choices) - 1)
        rounds.append({"candidates": candidates, "chosen": after, "value": level})
        rounds[-1]["kept"] = kept
        current = after if kept else current
    about = {"direction": "forward", "rule": "paper", "epsilon": 0.005, "stop": "so"}
    about |= {"items": list(items), "start": start, "rounds": rounds, "value": level}
    return {**profile([]), **about, "selected": current, **more}


def final(*known):
    return {"rows": [row(["b0"], 0.9, name=name, train_steps=9) for name in known]}


def check(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()


def proxies(scores, rank=0.5, count=1):
    one = {"scores": scores, "rank_correlation": rank, "seconds": 0.1}
    return {f"proxy {number}": one for number in range(count)}


LONG = [f"encoder/{'deep' * 10}/$x_{{{number}" for number in range(5)]
PROFILES = {
    "nothing was trained": profile([]),
    "one block": profile(rows_of(names(1))),
    "one value": profile(rows_of(names(4), count=1)),
    "equal values": profile([row([], count=1), row(["b0"], count=1)], best=None),
    "head only": profile([row([])]),
    "runs alone": profile(rows_of(names(5), (2, 3), full=False), best=["b1", "b2"]),
    "two blocks": profile(rows_of(names(2), pairs=True)),
    "pairs alone": profile(rows_of(names(4), (), True), best=["b0", "b2"]),
    "many pairs": profile(rows_of(names(25), (1, 2, 3), True)),
    "long names": profile(rows_of(LONG, (1, 2), True), proxies=proxies({}, None)),
    "proxies": profile(
        rows_of(names(6)), proxies=proxies({"b0": 1e-9, "b3": 2.0}, -0.001, 7)
    ),
    "equal scores": profile(rows_of(names(3)), proxies=proxies({"b0": 0, "b1": 0})),
    "pairs and proxies": profile(
        [*rows_of(names(4), pairs=True), row(["b0", "b3"], 0.2, 10)],
        proxies=proxies({"b1": -3.0}, count=3),
    ),
}
SEARCHES = {
    "no round": search(names(3), []),
    "no round, finals": search(names(3), [], final=final("selected")),
    "one round, refused": search(names(3), ["b1"]),
    "one item, equal values": search(["b0"], ["b0"], tie=True),
    "backward": search(names(4), ["b2", "b0"], back=True, final=None),
    "to the end": search(names(3), names(3), refused=False, final=final("a", "full")),
    "60 items": search([f"layer/{n}" for n in names(60)], ["layer/b7", "layer/b2"]),
    "60 rounds": search(names(60), names(60), final=final(*LONG)),
    "no trainable": search(
        names(2), ["b1"], final={"rows": [row([], name="full", count=1)]}
    ),
}
SIZES = {
    "nothing": [],
    "one": [{"train_examples": 5, "name": "a", "mean": 1.0, "std": 0, "blocks": []}],
    "two names": [
        {"train_examples": n, "name": m, "mean": 0.5, "std": 0.1, "blocks": blocks}
        for n, m, blocks in itertools.product((100, 110, 9000), ("selected", "$"), (3,))
    ],
    "several tasks": [
        {"train_examples": n, "name": "selected", "mean": 0.5, "std": 0.1}
        | {"task": task, "network": "", "blocks": ["b0"] * n}
        for n, task in itertools.product((3, 9), "xy")
    ],
    "no block selected": [
        {"train_examples": 9, "name": "selected", "mean": 0, "std": 0, "blocks": []}
    ],
}


@pytest.mark.parametrize("name", PROFILES)
def test_any_profile_is_drawn(name):
    check(profiles.profile(PROFILES[name]))


@pytest.mark.parametrize("reinitialise", profiles.EXPERIMENTS)
def test_any_experiment_is_drawn(reinitialise):
    check(profiles.profile(profile(rows_of(names(3)), reinitialise=reinitialise)))


@pytest.mark.parametrize("name", SEARCHES)
def test_any_search_is_drawn(name):
    check(searches.search(SEARCHES[name]))


@pytest.mark.parametrize("name", SIZES)
def test_any_sizes_are_drawn(name):
    check(sizes.sizes(SIZES[name]))


def test_blocks_are_in_the_order_of_the_network():
    blocks = ["stem", "b10", "b2", "top"]
    for lengths, pairs in (((1,), False), ((2,), False), ((), True), ((), False)):
        assert profiles.order(rows_of(blocks, lengths, pairs)) == blocks


def test_rows_of_fewer_steps_were_stopped():
    rows = [row([], steps=steps) for steps in (9, 27, 3, 27)]
    assert marks.stopped(rows) == [True, False, True, False]
    assert marks.stopped([]) == []


def test_points_stand_where_their_blocks_are():
    rows = [
        row([], 0.1), row(["a"], 0.2), row(["b"], 0.3, 50), row(["c"], 0.4),
        row(["b", "c"], 0.6), row(["a", "c"], 0.7), row(["a", "b", "c"], 0.8),
    ]  # fmt: skip
    figure = themes.canvas(8, 3)
    profiles._profile(figure, profile(rows, best=["c"]), ["a", "b", "c"])
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line
        for line in lines
        if line.get_marker() in ("o", "D")
    }
    assert set(points) == {(0, 0.2), (1, 0.3), (2, 0.4), (1.5, 0.6)}
    hollow = {place for place, line in points.items() if line.get_mfc() == LIGHT.paper}
    assert hollow == {(1, 0.3)}
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [0.1, 0.8]
    assert "best 0.400" in [text.get_text() for text in figure.axes[0].texts]


def test_moves_path_and_gains_follow_the_search():
    content = search(["a", "b", "c"], ["b", "c", "a"])
    moves = searches.moves(content)
    assert [sorted(one) for one in moves] == [["a", "b", "c"], ["a", "c"], ["a"]]
    assert moves[1]["c"]["blocks"] == ["b", "c"]
    steps = [(what, kept) for what, _, kept in searches.path(content)]
    assert steps == [("start", True), ("+b", True), ("+c", True), ("+a", False)]
    gains = searches.gains(content)
    assert {place for place, (gain, _) in gains.items() if gain > 0} == {
        (0, 1), (1, 2), (2, 0)
    }  # fmt: skip
    assert gains[1, 0][0] == pytest.approx(0.4 - 0.51)
    back = search(["a", "b"], ["b", "a"], back=True)
    assert [what for what, *_ in searches.path(back)] == ["start", "−b", "−a"]
    assert set(searches.moves(back)[1]) == {"a"}


def test_gains_know_what_was_stopped_early():
    content = search(["a", "b"], ["b"])
    content["rounds"][0]["candidates"][0]["steps"] = 10
    early = {place: early for place, (_, early) in searches.gains(content).items()}
    assert early == {(0, 0): True, (0, 1): False}


@given(st.lists(st.floats(0, 9), min_size=1, max_size=9), st.floats(0.01, 2))
def test_spread_keeps_the_order_and_the_gap(values, gap):
    places = marks.spread(values, gap)
    ranks = np.argsort(values, kind="stable")
    assert (np.diff(places[ranks]) >= gap - 1e-9).all()
    assert np.mean(places) == pytest.approx(np.mean(values), abs=1e-9)
    far = np.arange(len(values)) * 3.0
    np.testing.assert_allclose(marks.spread(far, gap), far)


def test_a_line_of_sizes_has_one_name_and_one_place():
    rows = [
        {"train_examples": size, "name": name, "task": task, "network": "vit"}
        for size, name, task in itertools.product((9, 3), ("b", "a"), ("y", "x"))
    ]
    lines = sizes.by_size(rows)
    assert list(lines) == ["b y vit", "b x vit", "a y vit", "a x vit"]
    assert [row["train_examples"] for row in lines["a x vit"]] == [3, 9]
    assert list(sizes.by_size(rows[::2])) == ["b", "a"]


def test_ticks_keep_apart_and_keep_the_last():
    ticks = sizes.thinned([50, 60, 100, 1000, 1100])
    assert ticks == [60, 100, 1100]
    assert all(b / a >= 1.3 for a, b in itertools.pairwise(ticks))


def test_times_are_in_their_unit():
    assert [marks.duration(s) for s in (0.5, 192, 9000)] == [
        "0.5 s",
        "3.2 min",
        "2.5 h",
    ]
    assert math.isclose(float(marks.duration(89).split()[0]), 89)
