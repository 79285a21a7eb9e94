"""Runs on masks: from config to result, report and evaluation, and what is refused."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from subtune_jax import delta
from subtune_jax.backbones import vit
from subtune_jax.commands import configs
from subtune_jax.commands import evaluate as evaluate_command
from subtune_jax.commands import train as train_command
from subtune_jax.core import registry, trees
from subtune_jax.data import dense
from subtune_jax.report import mask_pictures, themes
from subtune_jax.selection import masks
from subtune_jax.training import (
    evidence,
    prediction,
    report_data,
    setup,
    workdir,
)
from subtune_jax.training.settings import with_changes

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.task = dict(
        name="polyps", examples=320, image_size=32, raised=(2.5, 3.0)  # in plain sight
    )
    config.backbone = dict(name="vit", variant=(32, 2, 2, 4, False), image_size=32)
    config.method = dict(name="blocks", names=("embed", "block01", "block02"))
    config.optimizer = dict(
        name="adam", learning_rate=5e-3, warmup_steps=20, clip_norm=1.0,
        accumulate_steps=2,
    )
    config.augment = dict(flip=True)
    config.batch_size = 16
    config.train_steps = 200
    config.eval_steps = 0
    config.save_steps = 0
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    arguments = [f"--config={config}", f"--workdir={workdir}"]
    assert train_command.main(arguments) == 0
    return workdir, arguments


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_training_on_masks_improves_over_its_start(config, finished):
    made = setup.prepare(configs.read(str(config), {}))
    logits = prediction.frozen(made, made.variables)(made.validation)
    start = made.task.metric(logits, made.validation.labels)
    records = workdir.read_log(finished[0])
    loss = [r["loss"] for r in records if r["split"] == "train"]
    right = [r["accuracy"] for r in records if r["split"] == "train"]
    (dice,) = [r["mDice"] for r in records if r["split"] == "validation"]
    assert len(loss) == 200
    assert np.mean(loss[-10:]) < 0.5 * loss[0]
    assert 0 < right[0] < np.mean(right[-10:]) <= 1
    assert dice > start + 0.3
    found = result(finished[0])
    assert found["frozen_unchanged"] is True
    assert found["metrics"]["name"] == "mDice"
    assert found["metrics"]["validation"] == pytest.approx(dice)
    assert 0 < found["metrics"]["also"]["mIoU"] < 1


def test_evaluation_finds_what_training_measured(finished):
    workdir, arguments = finished
    assert evaluate_command.main(arguments) == 0
    found = json.loads((workdir / "evaluation.json").read_text())
    measured = result(workdir)["metrics"]
    assert found["metric"]["value"] == measured["test"]
    assert found["metric"]["also"] == measured["also"]


def test_the_report_shows_masks_instead_of_mistakes(finished):
    page = (finished[0] / "report.html").read_text()
    assert "Images of the lowest mDice: image, truth and guess" in page
    assert "classified wrongly" not in page
    assert "mIoU" in page


def test_the_worst_images_come_first_each_with_its_own_masks(config):
    made = prepared(config)
    logits = prediction.frozen(made, made.variables)(made.validation)
    truth = made.validation.labels
    found = report_data.worst(made, logits, truth, made.validation, count=4)
    each = [dense.mean_dice(logits[i][None], truth[i][None]) for i in range(len(truth))]
    assert [example["metric"] for example in found] == sorted(each)[:4]
    for example in found:
        (where,) = np.flatnonzero(
            (made.validation.inputs == example["image"]).all((1, 2, 3))
        )
        np.testing.assert_array_equal(example["truth"], truth[where])
        guess = dense.guess(logits[where], truth[where].shape)
        np.testing.assert_array_equal(example["guess"], guess)


def test_pictures_of_masks_leave_the_background_clear():
    image = np.full((2, 2, 3), 0.4, np.float32)
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    found = mask_pictures.paint(image, mask, classes=3)
    np.testing.assert_array_equal(found[0, 0], image[0, 0])
    assert found.min() >= 0 and found.max() <= 1
    assert len(np.unique(found.reshape(4, 3).round(4), axis=0)) == 4
    assert found[1, 1].std() == pytest.approx(0, abs=1e-6)  # ignored: grey
    figure = themes.canvas(6, 5)
    one = {"image": np.zeros((2, 2, 3), np.uint8), "truth": mask, "guess": mask}
    mask_pictures.worst(figure, [{**one, "metric": 0.25}] * 7, 3, "mDice")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["mDice 0.25", "truth", "guess"] * 6


@pytest.mark.slow
def test_a_head_on_masks_is_trained_on_features_that_are_computed_once(
    config, tmp_path, capsys
):
    more = ["--config.method.name=head", "--config.augment.flip=False"]
    more += ["--config.train_steps=3", "--config.optimizer.probe_steps=2"]
    ends = []
    for cached in (True, False):
        arguments = [f"--config={config}", f"--workdir={tmp_path / str(cached)}"]
        arguments += [*more, f"--config.trunk_cache={cached}"]
        assert train_command.main(arguments) == 0
        found = result(tmp_path / str(cached))
        base = registry.load("backbones", found["config"]["backbone"]).load()
        tree = jax.tree.map(np.asarray, base._asdict())
        ends.append(delta.load(tmp_path / str(cached) / "delta", tree)["params"])
        assert 0 <= found["linear_probe"]["test"] <= 1
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def tiny():
    return registry.load("backbones", {"name": "vit", **vit.TINY})


def test_the_network_for_masks_has_the_same_base():
    plain = tiny()
    other_form = plain.dense()
    assert other_form.blocks == plain.blocks and other_form.alike == plain.alike
    one, other = plain.load(), other_form.load()
    jax.tree.map(np.testing.assert_array_equal, one, other)
    key = jax.random.key(3)
    one, other = plain.init(key, 4), other_form.init(key, 4)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_every_patch_has_an_answer_in_its_place():
    backbone = tiny().dense()
    params = backbone.init(jax.random.key(0), 5).params
    x = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    tokens, _ = backbone.apply(params, {}, x, stop="norm")
    found, _ = backbone.apply(params, {}, x)
    assert found.shape == (3, 2, 2, 5)
    wide = np.asarray(tokens, np.float64)
    wide -= wide.mean(-1, keepdims=True)
    wide /= np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    head = params["head"]
    for i, j in np.ndindex(2, 2):
        expected = wide[:, 1 + 2 * i + j] @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-3, atol=1e-4)
    moved = x.copy()
    moved[:, :8, 8:] += 1  # above, on the right
    one, other = (
        np.asarray(backbone.apply(params, {}, y, stop="block01")[0]) for y in (x, moved)
    )
    assert np.flatnonzero((one != other).any((0, 2))).tolist() == [1 + 1]


def prepared(config, **changes):
    given = configs.read(str(config), {"task.examples": "60", "batch_size": "8"})
    return setup.prepare(with_changes(given, changes))


METHODS = {
    "gps": {"loss": "task", "biases": False},
    "fish": {"fraction": 0.1, "examples": 4},
    "sift": {"batches": 1},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_follow_gradients_select_by_the_loss_of_masks(config, name):
    made = prepared(config, method={"name": name, **METHODS[name]})
    selection = made.selector.init(evidence.make(made))
    params, chosen = made.variables.params, selection.mask
    count = sum(masks.count(params[b], chosen[b]) for b in made.backbone.blocks[:-1])
    assert 0 < count < sum(np.size(x) for x in trees.flatten(params).values())


def test_the_contrastive_loss_of_gps_is_refused(config):
    made = prepared(config, method={"name": "gps"})
    with pytest.raises(ValueError, match="without features and views; loss='task'"):
        made.selector.init(evidence.make(made))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"backbone": {"name": "mlp"}, "method": {"name": "full"}},
            "backbone mlp has no dense head; vit has, and task polyps needs one",
        ),
        ({"augment": {"mixup": 0.2}}, "mixup=0.2, cutmix=0.0; masks are not mixed"),
        ({"augment": {"cutmix": 1.0}}, "mixup=0.0, cutmix=1.0; masks are not mixed"),
    ],
)
def test_what_masks_cannot_have_is_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        prepared(config, **changes)


def test_black_and_white_masks_do_not_pass_as_background(config, tmp_path):
    for part in ("train", "validation", "test"):
        for what, pixels in (
            ("images", np.zeros((8, 8, 3), np.uint8)),
            ("masks", np.eye(8, dtype=np.uint8) * 255),
        ):
            (tmp_path / part / what).mkdir(parents=True)
            for number in range(8):
                file = tmp_path / part / what / f"{number}.png"
                Image.fromarray(pixels).save(file)
    task = {"name": "folder_masks", "path": str(tmp_path)}
    with pytest.raises(ValueError, match="folder_masks hold background alone, and"):
        prepared(config, task=task)
    made = prepared(config, task={**task, "threshold": 128})
    assert set(np.unique(made.train.labels)) == {0, 1}
