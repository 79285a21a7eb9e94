"""A server of many tasks answers as separate models do, for the cost of one trunk."""

import functools

import jax
import numpy as np
import pytest
from compilations import counted
from tuned_tasks import SIZES, alone, close, serve, tune

from subtune_jax.backbones import bert, vit
from subtune_jax.core import flops, registry
from subtune_jax.serving import multitask, served_flops, server_program
from subtune_jax.study.benches import multitask as bench


@pytest.fixture(scope="module", params=registry.plugins("backbones"))
def served(request):
    return serve(request.param)


def test_every_task_answers_as_its_own_model(served):
    answers = multitask.everything(served.server, served.images)
    assert list(answers) == list(served.tuned)
    for name, each in answers.items():
        close(each, served.expected[name])
    assert served.server.tasks["late"] == (served.late, 3)
    assert served.server.tasks["head"] == ("head", 7)


def test_some_tasks_and_the_base_answer_few_images(served):
    answers = multitask.everything(served.server, served.images[:3], ["later", "base"])
    assert list(answers) == ["later", "base"]
    for name, each in answers.items():
        close(each, served.expected[name][:3])


@pytest.mark.parametrize("known", [["base"], ["base", "head", "late", "all", "bias"]])
def test_a_batch_may_mix_tasks_in_any_order(served, known):
    order = np.random.default_rng(0).choice(known, 11)
    answers = multitask.mixed(served.server, served.images, order)
    for row, (name, each) in enumerate(zip(order, answers, strict=True)):
        close(each, served.expected[name][row])


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
        answers = multitask.everything(server, served.images)
        mixed = multitask.mixed(
            server, served.images, ["two", "part", "base"] * 3 + ["head"] * 2
        )
        server = multitask.remove(server, "two")
        server = multitask.add(server, "again", more["two"])
        again = multitask.everything(server, served.images, ["again", "one"])
    assert not programs
    for name in more:
        close(answers[name], expected[name])
    close(answers["one"], again["one"])
    close(again["again"], expected["two"])
    close(mixed[1], expected["part"][1])
    close(mixed[2], served.expected["base"][2])
    close(mixed[10], expected["head"][10])


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
            above = server_program.segment(backbone, None, ends[0])
            x = jax.eval_shape(above, served.tuned[name], x)
        part = server_program.segment(backbone, *ends)
        return flops.needed(part, served.tuned[name], x).forward

    expected = needed(asked[0], 8, None, last)
    for name in asked:  # in two tiles of 4 rows
        fork, classes = server.tasks[name]
        expected += 2 * needed(name, 4, fork, None)
        # Logits that pad the head: a product, the bias of each row, and its own zero.
        width = served.expected["base"].shape[-1]
        expected += 2 * (9 - classes) * (4 * 2 * width + 4 + 1)
    operations = served_flops.count(server, dict.fromkeys(asked, np.arange(8)), 8)
    assert operations == pytest.approx(expected, rel=1e-3)


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
            answers = multitask.everything(server, tokens)
            for name, each in answers.items():
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


def test_the_benchmark_compares_with_separate_models_and_the_bound():
    backbone = vit.make(**vit.TINY)
    figures = bench.compare(backbone, ("block02",), 1, batch=8)
    assert figures["compiled"] == 0
    assert figures["difference"] < 1e-5
    assert figures["operations"]["server_to_bound"] == pytest.approx(1, abs=1e-3)
    assert figures["operations"]["separate_to_server"] > 1.5
    forms = ["server", "separate", "bound", "mixed", "separate_mixed"]
    assert list(figures["milliseconds"]) == forms
