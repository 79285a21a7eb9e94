"""A server of many tasks answers as separate models do, for the cost of one trunk."""

import functools
import re
from types import SimpleNamespace

import jax
import noise
import numpy as np
import pytest
from compilations import counted

from subtune_jax import delta
from subtune_jax.backbones import bert, mlp, vit
from subtune_jax.core import flops, registry, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.data import dataset
from subtune_jax.serving import multitask, program, served_flops
from subtune_jax.study.benches import multitask as bench

SIZES = {"tile": 4, "batch": 8}


def tune(backbone, base, classes, *parts):
    """The base with a head, all leaves changed that have one of `parts` in the path."""
    rng = np.random.default_rng(classes)

    def move(path, leaf):
        if not any(part in f"/{path}" for part in parts):
            return leaf
        return (leaf * rng.uniform(0.5, 1.5, leaf.shape) + 0.01).astype(leaf.dtype)

    params, stats = trees.map_leaves(move, jax.tree.map(np.asarray, tuple(base)))
    head = backbone.init(jax.random.key(0), classes).params["head"]
    head = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), head)
    return Variables({**params, "head": head}, stats)


def alone(backbone, variables, images):
    """What a separate model answers; the base, features."""
    params, stats = variables
    below = {block: own for block, own in params.items() if block != "head"}
    x = features(backbone.apply, below, stats, dataset.normalize(backbone, images))
    if "head" in params:
        x = backbone.apply(params, stats, x, start="head")[0]
    return np.asarray(x)


@functools.partial(jax.jit, static_argnums=0)
def features(apply, params, stats, x):
    return apply(params, stats, x, stop="head")[0]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def serve(name):
    """A network, a base and tasks of every kind of fork."""
    backbone = noise.network(name)
    base = backbone.load()
    first, late, later = (backbone.blocks[number] for number in (0, -3, -2))
    tuned = {
        "all": tune(backbone, base, 2, ""),
        "first": tune(backbone, base, 9, f"/{first}/"),
        "late": tune(backbone, base, 3, f"/{late}/", f"/{later}/"),
        "later": tune(backbone, base, 4, f"/{later}/"),
        "bias": tune(backbone, base, 5, "/bias"),
        "statistics": tune(backbone, base, 6, "/mean", "/var"),
        "head": tune(backbone, base, 7),
    }
    images = noise.raw(backbone, 11)
    whole = {**tuned, "base": base}
    expected = {name: alone(backbone, each, images) for name, each in whole.items()}
    server = multitask.join(backbone, base, tuned, **SIZES)
    return SimpleNamespace(**locals())


@pytest.fixture(scope="module", params=registry.plugins("backbones"))
def served(request):
    return serve(request.param)


@pytest.fixture(scope="module")
def small():
    return serve("mlp")


def test_every_task_answers_as_its_own_model(served):
    found = multitask.everything(served.server, served.images)
    assert list(found) == list(served.tuned)
    for name, each in found.items():
        close(each, served.expected[name])
    assert served.server.tasks["late"] == (served.late, 3)
    assert served.server.tasks["head"] == ("head", 7)


def test_some_tasks_and_the_base_answer_few_images(served):
    found = multitask.everything(served.server, served.images[:3], ["later", "base"])
    assert list(found) == ["later", "base"]
    for name, each in found.items():
        close(each, served.expected[name][:3])


@pytest.mark.parametrize("known", [["base"], ["base", "head", "late", "all", "bias"]])
def test_a_batch_may_mix_tasks_in_any_order(served, known):
    order = np.random.default_rng(0).choice(known, 11)
    found = multitask.mixed(served.server, served.images, order)
    for row, (name, each) in enumerate(zip(order, found, strict=True)):
        close(each, served.expected[name][row])


def test_no_images_are_no_answers(small):
    none = small.images[:0]
    found = multitask.everything(small.server, none, ["late", "base"])
    assert found["late"].shape == (0, 3)
    assert found["base"].shape == (0, 16)
    assert multitask.mixed(small.server, none, []) == []


def test_another_task_of_the_same_shape_compiles_nothing(served):
    backbone, base = served.backbone, served.base
    first = {"one": tune(backbone, base, 5, f"/{served.late}/", f"/{served.later}/")}
    server = multitask.join(backbone, base, first, **SIZES)
    multitask.everything(server, served.images)
    more = {
        "two": tune(backbone, base, 3, f"/{served.late}/", f"/{served.later}/"),
        "part": tune(backbone, base, 4, f"/{served.later}/"),
        "head": tune(backbone, base, 2),
    }
    expected = {n: alone(backbone, each, served.images) for n, each in more.items()}
    with counted() as programs:
        for name, tuned in more.items():
            grown = multitask.add(server, name, tuned)
            assert name not in server.tasks
            server = grown
        found = multitask.everything(server, served.images)
        mixed = multitask.mixed(
            server, served.images, ["two", "part", "base"] * 3 + ["head"] * 2
        )
        server = multitask.remove(server, "two")
        server = multitask.add(server, "again", more["two"])
        again = multitask.everything(server, served.images, ["again", "one"])
    assert not programs
    for name in more:
        close(found[name], expected[name])
    close(found["one"], again["one"])
    close(again["again"], expected["two"])
    close(mixed[1], expected["part"][1])
    close(mixed[2], served.expected["base"][2])
    close(mixed[10], expected["head"][10])


def test_what_a_task_leaves_behind_is_not_read(small):
    server = multitask.remove(small.server, "all")
    assert "all" not in multitask.everything(server, small.images)
    with pytest.raises(ValueError, match="no task named 'all'; there are base, bias"):
        multitask.mixed(server, small.images, ["all"] * 11)
    new = tune(small.backbone, small.base, 4, "/bias")  # in the rows of "all"
    for _ in range(6):  # there are 4 spare ones
        server = multitask.add(server, "new", new)
        assert server.layout is small.server.layout
        full, server = server, multitask.remove(server, "new")
    server = full
    for name, variables in (("new", new), ("bias", small.tuned["bias"])):
        found = multitask.everything(server, small.images, [name])[name]
        close(found, alone(small.backbone, variables, small.images))
    close(
        multitask.everything(small.server, small.images)["all"], small.expected["all"]
    )


@pytest.mark.parametrize("why", ["leaf", "classes", "slots", "rows"])
def test_a_task_of_another_shape_is_laid_out_anew(small, why):
    backbone, base, late, later = small.backbone, small.base, small.late, small.later
    first = {
        "one": tune(backbone, base, 3, f"/{later}/"),
        "two": tune(backbone, base, 4),
    }
    server = multitask.join(backbone, base, first, spare=2, **SIZES)
    if why == "rows":  # free slots, but no free row of what only "one" changed
        server = multitask.remove(server, "two")
        first.pop("two")
    for name in {"slots": ["s1", "s2"], "rows": ["r1", "r2"]}.get(why, []):
        first[name] = tune(backbone, base, 3, f"/{later}/")
        grown = multitask.add(server, name, first[name])
        assert grown.layout is server.layout
        server = grown
    blocks = [f"/{late}/", f"/{later}/"][why != "leaf" :]
    first["new"] = tune(backbone, base, 5 if why == "classes" else 3, *blocks)
    grown = multitask.add(server, "new", first["new"])
    assert grown.layout is not server.layout
    assert grown.layout.slots == len(first) + 2
    found = multitask.everything(grown, small.images)
    assert sorted(found) == sorted(first)
    for name, each in found.items():
        close(each, alone(backbone, first[name], small.images))


def test_only_changed_leaves_are_stacked(small):
    backbone, base = small.backbone, small.base
    changed = {"one": tune(backbone, base, 3, "/bias"), "two": tune(backbone, base, 2)}
    server = multitask.join(backbone, base, changed, spare=1)
    shapes = {path: stack.shape for path, stack in server.stacks.leaves.items()}
    assert shapes == {
        "params/hidden01/norm/bias": (3, 16),  # base, "one", and a free row
        "params/hidden02/norm/bias": (3, 16),
        "params/head/kernel": (4, 16, 3),
        "params/head/bias": (4, 3),
    }
    assert server.layout.forks == ("hidden01", "head")


def test_room_for_more_classes_is_kept(small):
    server = multitask.join(small.backbone, small.base, small.tuned, classes=20)
    wide = tune(small.backbone, small.base, 20)
    grown = multitask.add(server, "wide", wide)
    assert grown.layout is server.layout
    found = multitask.everything(grown, small.images, ["wide", "late"])
    close(found["wide"], alone(small.backbone, wide, small.images))
    close(found["late"], small.expected["late"])


def test_deltas_on_disk_are_tasks(small, tmp_path):
    folders = {name: tmp_path / name for name in ("late", "bias")}
    for name, folder in folders.items():
        delta.save(folder, small.base, small.tuned[name])
    server = multitask.load(small.backbone, small.base, folders, **SIZES)
    for name, each in multitask.everything(server, small.images).items():
        close(each, small.expected[name])
    other = mlp.make(**mlp.TINY, seed=1).load()
    with pytest.raises(ValueError, match="task 'late': wrong base: leaf 'params/"):
        multitask.load(small.backbone, other, folders)


@pytest.mark.parametrize(
    "asked", [["late"], ["later", "late", "head"], ["all", "bias"]]
)
def test_the_trunk_runs_once_and_each_task_from_its_fork(served, asked):
    backbone, server = served.backbone, served.server
    last = max((server.tasks[name].fork for name in asked), key=backbone.blocks.index)

    def needed(name, rows, *ends):
        shape = (rows, *backbone.input_shape)
        x = jax.ShapeDtypeStruct(shape, served.images.dtype)
        if ends[0] is not None:
            above = program.segment(backbone, None, ends[0])
            x = jax.eval_shape(above, served.tuned[name], x)
        part = program.segment(backbone, *ends)
        return flops.needed(part, served.tuned[name], x).forward

    expected = needed(asked[0], 8, None, last)
    for name in asked:  # in two tiles of 4 rows
        fork, classes = server.tasks[name]
        expected += 2 * needed(name, 4, fork, None)
        # Logits that pad the head: a product, the bias of each row, and its own zero.
        width = served.expected["base"].shape[-1]
        expected += 2 * (9 - classes) * (4 * 2 * width + 4 + 1)
    found = served_flops.count(server, dict.fromkeys(asked, np.arange(8)), 8)
    assert found == pytest.approx(expected, rel=1e-3)


def test_nothing_is_run_that_nobody_asked_for(small):
    server = small.server
    images = small.images[:8]
    for asked, features, rows in (
        ({"late": np.arange(8)}, False, 8),
        ({"late": np.arange(3)}, False, 4),  # a whole tile
        ({"head": np.arange(1)}, True, 4),  # which it runs to the head for
        ({"base": np.arange(2)}, True, 0),
    ):
        tiles, _ = program.plan(server, asked, 8)
        given = server.base, server.stacks.leaves, images, tiles
        logits, found = map(np.asarray, server.layout.answer(*given))
        assert found.any() == features
        assert logits.any(-1).sum() == rows


def test_texts_come_at_any_length_and_have_a_program_for_few():
    variant = (16, 2, 2, 32, 999, 16)  # with more words than a byte has numbers
    backbone = bert.make(variant=variant, length=8, lengths=(4,))
    base = backbone.load()
    tuned = {"bias": tune(backbone, base, 3, "/bias"), "head": tune(backbone, base, 2)}
    server = multitask.join(backbone, base, tuned, **SIZES)
    few = backbone.encode([{"text": "a"}, {"text": "a b"}, {"text": ""}])
    long = backbone.encode([{"text": "a b c d e f"}] * 3)
    assert (few.shape[1], long.shape[1]) == (4, 8)
    expected = {name: alone(backbone, each, few) for name, each in tuned.items()}
    multitask.everything(server, few)
    with counted() as programs:
        padded = np.pad(few, ((0, 0), (0, 5), (0, 0)))
        for tokens in (few, padded, few[:, :4]):
            found = multitask.everything(server, tokens)
            for name, each in found.items():
                close(each, expected[name])
        short = multitask.mixed(server, few[2:, :2], ["bias"])
    assert not programs
    close(short[0], expected["bias"][2])
    with counted() as programs:
        multitask.everything(server, long)
    assert programs
    ask = functools.partial(multitask.everything, server)
    for match, tokens in (
        (r"texts are int64 \[3, 4, 2\]; there are int32 \[B, L, 2\]", few.astype(int)),
        (r"texts are int32 \[3, 4, 1\]", few[..., :1]),
        ("a text of 16 tokens; backbone bert takes 8", np.tile(long, (1, 2, 1))),
    ):
        with pytest.raises(ValueError, match=match):
            ask(tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "no tasks; there must be one or more"),
        ({"base": "late"}, "a task named 'base'; that name is the plain base's"),
        ({"x": "base"}, "task 'x' has no head; there are 10 other leaves"),
        ({"x": "narrow"}, "task 'x': leaf 'params/head/kernel' is float32 [15, 3]"),
        ({"x": "missing"}, "task 'x': no leaf 'stats/hidden01/norm/mean' in the tuned"),
        ({"x": "more"}, "task 'x': leaf 'params/hidden03/bias' is not in the base"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(small, change, message):
    late = small.tuned["late"]
    head = {**late.params["head"], "kernel": late.params["head"]["kernel"][1:]}
    stats = {"hidden01": {"norm": {"var": np.ones(16, "f4")}}}
    wrong = {
        "late": late,
        "base": small.base,
        "narrow": Variables({**late.params, "head": head}, late.stats),
        "missing": Variables(late.params, {**late.stats, **stats}),
        "more": Variables(
            {**late.params, "hidden03": {"bias": np.ones(1)}}, late.stats
        ),
    }
    tasks = {name: wrong[which] for name, which in change.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        multitask.join(small.backbone, small.base, tasks)
    if tasks:
        with pytest.raises(ValueError, match=re.escape(message)):
            multitask.add(small.server, *tasks.popitem())


def test_questions_that_make_no_sense_are_refused(small):
    server, images = small.server, small.images
    ask = functools.partial(multitask.everything, server)
    join = functools.partial(multitask.join, small.backbone, small.base, small.tuned)
    for match, question in (
        ("no task named 'lat'; did you mean 'late'", lambda: ask(images, ["lat"])),
        ("images are float32", lambda: ask(images.astype("f4"))),
        (
            r"uint8 \[11, 4, 8, 3\]; there are uint8 \[B, 8, 8, 3\]",
            lambda: ask(images[:, ::2]),
        ),
        (
            "2 names; there are 11 images",
            lambda: multitask.mixed(server, images, ["late", "base"]),
        ),
        ("no task named 'base'", lambda: multitask.remove(server, "base")),
        (
            "there is a task 'late' already",
            lambda: multitask.add(server, "late", small.tuned["late"]),
        ),
        ("tile=4, batch=6", lambda: join(tile=4, batch=6)),
        ("spare=-1", lambda: join(spare=-1)),
    ):
        with pytest.raises(ValueError, match=match):
            question()


def test_the_benchmark_compares_with_separate_models_and_the_bound():
    backbone = vit.make(**vit.TINY)
    found = bench.compare(backbone, ("block02",), 1, batch=8)
    assert found["compiled"] == 0
    assert found["difference"] < 1e-5
    assert found["operations"]["server_to_bound"] == pytest.approx(1, abs=1e-3)
    assert found["operations"]["separate_to_server"] > 1.5
    forms = ["server", "separate", "bound", "mixed", "separate_mixed"]
    assert list(found["milliseconds"]) == forms
