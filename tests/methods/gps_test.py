"""GPS against slow literal statements of its loss and its rule, on every network."""

import importlib

import jax
import jax.numpy as jnp
import noise
import numpy as np
import pytest

from subtune_jax import scores
from subtune_jax.commands import configs
from subtune_jax.core import losses, registry, trees
from subtune_jax.core.method import Evidence
from subtune_jax.methods import gps
from subtune_jax.selection import masks
from subtune_jax.training import evidence, setup

RNG = np.random.default_rng(0)


def tiny(name):
    return importlib.import_module(f"subtune_jax.backbones.{name}").TINY


def literal_contrast(features, labels, temperature):
    """Equation 2 of arXiv:2004.11362, one pair at a time."""
    unit = [row / np.sqrt(sum(row**2)) for row in features.astype(np.float64)]
    total = 0.0
    for i, anchor in enumerate(unit):
        positives = [p for p in range(len(unit)) if p != i and labels[p] == labels[i]]
        below = sum(
            np.exp(anchor @ other / temperature)
            for a, other in enumerate(unit)
            if a != i
        )
        for p in positives:
            share = np.exp(anchor @ unit[p] / temperature) / below
            total -= np.log(share) / len(positives)
    return total / len(unit)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [3, 3, 3, 3, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_contrastive_loss_is_its_equation(labels, temperature):
    features = RNG.normal(size=(5, 3))
    loss = losses.contrastive(features, np.array(labels), temperature)
    expected = literal_contrast(features, labels, temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def test_features_of_zero_have_a_gradient():
    labels = np.array([0, 0, 1])
    slope = jax.grad(losses.contrastive)(np.zeros((3, 4), np.float32), labels)
    assert np.isfinite(slope).all()


NETWORKS = registry.plugins("backbones")
TEXTS = [name for name in NETWORKS if noise.network(name).encode is not None]


@pytest.fixture(scope="module", params=[n for n in NETWORKS if n not in TEXTS])
def scene(request):
    """The evidence of a tiny network on drawn scenes, and its literal scores."""
    shape, size = tiny(request.param), noise.network(request.param).input_shape[0]
    task = {"name": "structured", "examples": 80, "image_size": max(size, 16)}
    wanted = {
        "task": task,
        "backbone": {"name": request.param, **shape, "image_size": size},
        "method": {"name": "gps"},
        "batch_size": 8,
    }
    made = setup.prepare(configs.complete(wanted))
    seen = evidence.make(made)
    return made, seen, literal_scores(made, seen)


def literal_scores(made, seen):
    """The absolute sum of the gradients of every batch of an epoch, in float64."""

    def loss(params, batch):
        apply, stats = made.backbone.apply, made.variables.stats
        features, _ = apply(params, stats, batch["inputs"], stop="head")
        return losses.contrastive(features, batch["labels"], 0.07)

    slope, total = jax.jit(jax.grad(loss)), {}
    for batch in seen.views(len(made.train.labels) // 8):
        for path, leaf in trees.flatten(slope(seen.params, batch)).items():
            total[path] = total.get(path, 0.0) + np.asarray(leaf, np.float64)
    return {path: np.abs(leaf) for path, leaf in total.items()}


def test_each_neuron_keeps_the_inputs_with_the_largest_gradient(scene):
    made, seen, literal = scene
    mask = trees.flatten(gps.make(k=2).init(seen).mask)
    kernels = [p for p in literal if p.endswith("kernel") and "head/" not in p]
    assert kernels
    for path in kernels:
        flags = mask[path].reshape(-1, mask[path].shape[-1])
        columns = literal[path].reshape(flags.shape)
        for flag, column in zip(flags.T, columns.T, strict=True):
            kept, left = column[flag], column[~flag]
            assert flag.sum() == 2
            # A tie in float64 may be none in the float32 sums that chose.
            assert kept.min() >= left.max(initial=0) - 1e-4 * literal[path].max()
    others = [path for path in mask if path not in kernels]
    assert not any(np.any(mask[path]) for path in others)


def test_a_gradient_that_is_known_gives_the_literal_mask(scene, monkeypatch):
    made, seen, _ = scene
    flat = trees.flatten(seen.params)
    drawn = {p: RNG.integers(0, 9, np.shape(x)).astype(float) for p, x in flat.items()}
    monkeypatch.setattr(scores, "gradient", lambda *_: trees.nest(drawn))
    mask = trees.flatten(gps.make(k=3).init(seen).mask)
    for path in [p for p in flat if p.endswith("kernel") and "head/" not in p]:
        flags = mask[path].reshape(-1, flat[path].shape[-1])
        columns = drawn[path].reshape(flags.shape)
        for neuron in range(flags.shape[1]):
            order = sorted(range(len(flags)), key=lambda i: -columns[i, neuron])
            assert np.flatnonzero(flags[:, neuron]).tolist() == sorted(order[:3])


def test_biases_ride_along_but_those_of_norms_and_of_the_head(scene):
    made, seen, _ = scene
    flat = trees.flatten(seen.params)
    extras = gps.make().init(seen).extras
    riding = {p for p, flag in trees.flatten(extras).items() if np.any(flag)}
    wanted = {
        path
        for path in flat
        if path.rsplit("/", 1)[-1] in ("bias", "scale1", "scale2")
        and "norm" not in path
        and not path.startswith("head/")
    }
    assert riding == wanted
    assert gps.make(biases=False).init(seen).extras is None
    assert masks.count(seen.params, extras) == sum(flat[p].size for p in wanted)


def test_views_are_pairs_of_the_same_training_images(scene):
    made, seen, _ = scene
    plain, pairs = list(seen.batches(2)), list(seen.views(2))
    assert seen.epoch_batches == len(made.train.labels) // 8
    for batch, pair in zip(plain, pairs, strict=True):
        np.testing.assert_array_equal(np.tile(batch["labels"], 2), pair["labels"])
        first, second = np.split(np.asarray(pair["inputs"]), 2)
        assert first.shape == batch["inputs"].shape
        assert all(np.any(a != b) for a, b in zip(first, second, strict=True))
    again = list(seen.views(2))
    np.testing.assert_array_equal(again[1]["inputs"], pairs[1]["inputs"])


def test_scores_of_the_task_need_no_views(scene):
    _, seen, _ = scene
    bare = seen._replace(features=None, views=None)
    assert masks.count(seen.params, gps.make(loss="task").init(bare).mask)
    with pytest.raises(ValueError, match="without features and views; loss='task'"):
        gps.make().init(bare)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_scored_by_the_loss_of_the_task_alone(name):
    wanted = {
        "task": noise.task(name, 40, 8),
        "backbone": {"name": name, **tiny(name)},
        "method": {"name": "gps"},
        "batch_size": 8,
    }
    seen = evidence.make(setup.prepare(configs.complete(wanted)))
    with pytest.raises(ValueError, match="without features and views; loss='task'"):
        gps.make().init(seen)
    mask = trees.flatten(gps.make(k=1, loss="task").init(seen).mask)
    kernels = [p for p in mask if p.endswith("kernel") and "head/" not in p]
    assert kernels
    for path in kernels:
        assert mask[path].sum() == np.shape(trees.flatten(seen.params)[path])[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "tsk"}, "gps loss='tsk' is not known"),
        ({"batches": -1}, "gps batches=-1"),
        (
            {"temperature": 0.0},
            "temperature=0.0, until=0.0; they must be 0 or more, above 0",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gps.make(**arguments)


def test_scoring_stops_once_the_choice_is_stable(caplog):
    """The same batch again and again: the second choice is the first one."""
    rng = np.random.default_rng(0)
    params = {"a": {"kernel": rng.normal(size=(6, 4))}, "head": {"kernel": np.ones(4)}}
    x, read = rng.normal(size=(8, 6)), []

    def batches(count):
        for number in range(count):
            read.append(number)
            yield {"x": x}

    def loss_fn(params, batch):
        return jnp.sum(jnp.sin(batch["x"] @ params["a"]["kernel"]))

    evidence = Evidence(params, ("a", "head"), loss_fn, batches, epoch_batches=40)
    arguments = {"loss": "task", "biases": False}
    with caplog.at_level("INFO", "subtune_jax"):
        early = gps.make(until=1.0, **arguments).init(evidence)
    assert len(read) == 8  # two checks, four batches apart
    assert "gps used 8 of 40 batches" in caplog.text
    whole = gps.make(**arguments).init(evidence)
    np.testing.assert_array_equal(early.mask["a"]["kernel"], whole.mask["a"]["kernel"])
    with pytest.raises(ValueError, match="gps .*until=2; they must be"):
        gps.make(until=2)
