"""Tasks come, go, and are refused, on a server of one small network."""

import functools
import re

import numpy as np
import pytest
from tuned_tasks import SIZES, alone, close, serve, tune

from subtune_jax import delta
from subtune_jax.backbones import mlp
from subtune_jax.core.contracts import Variables
from subtune_jax.serving import multitask, server_program


@pytest.fixture(scope="module")
def small():
    return serve("mlp")


def test_no_images_are_no_answers(small):
    none = small.images[:0]
    answers = multitask.everything(small.server, none, ["late", "base"])
    assert answers["late"].shape == (0, 3)
    assert answers["base"].shape == (0, 16)
    assert multitask.mixed(small.server, none, []) == []


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
        answers = multitask.everything(server, small.images, [name])[name]
        close(answers, alone(small.backbone, variables, small.images))
    close(
        multitask.everything(small.server, small.images)["all"], small.expected["all"]
    )


@pytest.mark.parametrize("why", ["leaf", "classes", "slots", "rows"])
def test_a_task_of_another_shape_compiles_a_new_program(small, why):
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
    answers = multitask.everything(grown, small.images)
    assert sorted(answers) == sorted(first)
    for name, each in answers.items():
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
    answers = multitask.everything(grown, small.images, ["wide", "late"])
    close(answers["wide"], alone(small.backbone, wide, small.images))
    close(answers["late"], small.expected["late"])


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


def test_only_the_blocks_of_the_tasks_asked_are_run(small):
    server = small.server
    images = small.images[:8]
    for asked, features, rows in (
        ({"late": np.arange(8)}, False, 8),
        ({"late": np.arange(3)}, False, 4),  # a whole tile
        ({"head": np.arange(1)}, True, 4),  # which it runs to the head for
        ({"base": np.arange(2)}, True, 0),
    ):
        tiles, _ = server_program.assign(server, asked, 8)
        arguments = server.base, server.stacks.leaves, images, tiles
        logits, computed = map(np.asarray, server.layout.answer(*arguments))
        assert computed.any() == features
        assert logits.any(-1).sum() == rows


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


def test_impossible_arguments_are_refused_in_one_line(small):
    server, images = small.server, small.images
    ask = functools.partial(multitask.everything, server)
    join = functools.partial(multitask.join, small.backbone, small.base, small.tuned)
    for match, ask_wrongly in (
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
            ask_wrongly()
