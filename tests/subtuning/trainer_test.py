"""The trainer of trials, against the training that `train` does."""

import importlib

import noise
import numpy as np
import pytest
from small_trials import STEPS, opened, small, trained

from subtune_jax.core import devices, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.optim import partition
from subtune_jax.selection import masks
from subtune_jax.subtuning import trainer, trials
from subtune_jax.training import program
from subtune_jax.training.run import fit, linear_probe

NETWORKS = registry.plugins("backbones")


def probed(setup):
    """The head that `train` starts from."""
    return devices.to_host(linear_probe(setup).state.values)


def by_train(setup, mask, head=None):
    """The logits of the validation split after `train`'s own steps."""
    plan = partition.make(
        setup.variables,
        setup.backbone.blocks,
        Selection(mask),
        batch_norm=setup.settings["batch_norm"],
    )
    if head is None and setup.optimizer.probe_steps:
        head = probed(setup)
    built = program.build(setup, plan, setup.optimizer, STEPS, values=head)
    state = fit(built, STEPS).state
    return program.logits(built, state, setup.validation)


def same(a, b):
    assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@pytest.fixture(scope="module", params=NETWORKS)
def begun(request):
    """A setup, its trials, and the head that `train` starts from: compiled once."""
    setup = small(request.param)
    return setup, opened(setup), probed(setup)


@pytest.mark.parametrize(
    "where", ["first", "last", pytest.param("both", marks=pytest.mark.slow)]
)
def test_a_trial_is_the_training_that_train_does(begun, where):
    setup, testbed, head = begun
    inner = setup.backbone.blocks[:-1]
    own = [b for b in inner if trees.flatten(setup.base.params.get(b, {}))]
    blocks = {"first": own[:1], "last": own[-1:], "both": [own[0], own[-1]]}[where]
    _, logits = trained(testbed, trials.candidate(testbed, blocks))
    mask = masks.from_blocks(setup.variables.params, blocks)
    same(logits, by_train(setup, mask, head))


CHANGES = {
    "batch statistics": {"batch_norm": "trained"},
    "augmentation": {"augment": {"flip": True, "crop": 0.5, "mixup": 0.2}},
    "a new head": {"optimizer": {"probe_steps": 0, "learning_rate": 1e-2}},
    "layer decay": {"optimizer": {"layer_decay": 0.5, "probe_steps": 3}},
    "averages": {"optimizer": {"ema": 0.5, "clip_norm": 0.5, "probe_steps": 3}},
    "Auto-RGN": {"optimizer": {"rgn_steps": 2, "probe_steps": 3}},
    "accumulation": {"optimizer": {"accumulate_steps": 3, "clip_norm": 0.5}},
    "half precision": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_is_the_training_that_train_does_with(change):
    setup = small(**CHANGES[change])
    blocks = [setup.backbone.blocks[1]]
    testbed = opened(setup)
    _, logits = trained(testbed, trials.candidate(testbed, blocks))
    mask = masks.from_blocks(setup.variables.params, blocks)
    expected = by_train(setup, mask)
    if change == "half precision":
        assert np.linalg.norm(logits - expected) <= 0.02 * np.linalg.norm(expected)
    else:
        same(logits, expected)


def test_a_trial_of_numbers_is_the_training_that_train_does():
    setup = small("bert", task=noise.task("bert", 90, 8, regression=True))
    testbed = opened(setup)
    _, logits = trained(testbed, trials.candidate(testbed, []))
    nothing = masks.from_blocks(setup.variables.params, [])
    same(logits, by_train(setup, nothing))
    assert logits.shape == (len(setup.validation.labels), 1)


def test_a_trial_with_dropout_is_the_training_that_train_does():
    tiny = importlib.import_module("subtune_jax.backbones.bert").TINY
    setup = small("bert", backbone={"name": "bert", **tiny, "dropout": 0.3})
    blocks = [setup.backbone.blocks[1]]
    testbed = opened(setup)
    _, logits = trained(testbed, trials.candidate(testbed, blocks))
    same(logits, by_train(setup, masks.from_blocks(setup.variables.params, blocks)))


def test_a_trial_on_masks_is_the_training_that_train_does():
    task = {"name": "polyps", "examples": 90, "image_size": 16}
    setup = small("vit", task=task)
    blocks = [setup.backbone.blocks[1]]
    testbed = opened(setup)
    _, logits = trained(testbed, trials.candidate(testbed, blocks))
    same(logits, by_train(setup, masks.from_blocks(setup.variables.params, blocks)))


@pytest.mark.parametrize("network", ["mlp", "vit"])
def test_a_trial_may_train_single_arrays(network):
    setup = small(network)
    paths = [p for p in trees.flatten(setup.base.params) if p.endswith("kernel")][:2]
    testbed = opened(setup)
    candidate = trials.candidate(testbed, paths)
    assert candidate.trained == tuple(paths)
    _, logits = trained(testbed, candidate)
    mask = masks.fill(setup.variables.params, dict.fromkeys(paths, np.True_))
    same(logits, by_train(setup, mask))


def test_a_trial_is_the_same_on_eight_devices():
    both = []
    for count in (1, 8):
        testbed = opened(small(devices_=count, batch_norm="trained"))
        both.append(trained(testbed, trials.candidate(testbed, ["hidden01"]))[1])
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5)


def test_only_what_is_trained_moves():
    setup = small("vit", optimizer={"learning_rate": 0.1, "weight_decay": 0.5})
    testbed = opened(setup)
    candidate = trials.candidate(testbed, ["block02"])
    state, _ = trained(testbed, candidate)
    assert {path.split("/")[0] for path in state.values} == {"block02", "head"}
    frozen = trainer.training(testbed.trainer, candidate, testbed.folds[0])[1].fixed
    base = trees.flatten(setup.base.params)
    for path, leaf in base.items():
        if path not in state.values:
            np.testing.assert_array_equal(frozen.frozen[path], leaf)


def test_blocks_that_are_alike_share_every_program():
    shape = (16, 4, 2, 8, False)
    backbone = {"name": "vit", "variant": shape, "image_size": 16}
    testbed = opened(small("vit", backbone=backbone))
    programs = testbed.trainer.trunk.store.compiled
    counts = []
    for number in (1, 2, 3, 4):
        trained(testbed, trials.candidate(testbed, [f"block0{number}"]))
        counts.append(len(programs))
    # The last one has no block like it above that would be run frozen.
    assert counts[0] == counts[1] == counts[2] == counts[3]
    trained(testbed, trials.candidate(testbed, ["block01", "block03"]))
    trained(testbed, trials.candidate(testbed, ["block02", "block03", "block04"]))
    # A trained block above a trained one passes a gradient on: three programs more
    # (forward, back, and the sum of squares of three blocks and of four).
    assert len(programs) <= counts[0] + 4


def test_a_random_block_is_not_the_bases():
    setup = small()
    testbed = opened(setup)
    frozen = trials.candidate(testbed, [], ["hidden02"])
    state, _ = trained(testbed, frozen)
    assert {path.split("/")[0] for path in state.values} == {"head"}
    fold, base = testbed.folds[0], trees.flatten(setup.base.params)
    leaves = trainer.training(testbed.trainer, frozen, fold)[1].fixed.frozen
    kernels = [f"hidden0{number}/dense/kernel" for number in (1, 2)]
    np.testing.assert_array_equal(leaves[kernels[0]], base[kernels[0]])
    assert not np.array_equal(leaves[kernels[1]], base[kernels[1]])
    again = trials.candidate(testbed, ["hidden02"], ["hidden02"])
    begun = trainer.training(testbed.trainer, again, fold)[1].state
    np.testing.assert_array_equal(begun.values[kernels[1]], leaves[kernels[1]])


def test_a_second_stage_starts_where_the_first_ended():
    testbed = opened(small(batch_norm="trained"))
    fold = testbed.folds[0]
    candidate = trials.candidate(testbed, ["hidden02"])
    whole = trials.candidate(testbed, ["hidden01", "hidden02"])
    _, built = trainer.training(testbed.trainer, candidate, fold)
    state = fit(built, STEPS).state
    earlier = built.partition.training, state
    second = trainer.training(testbed.trainer, whole, fold, earlier=earlier)[1].state
    for path, leaf in state.values.items():
        np.testing.assert_array_equal(second.values[path], leaf)
    for path, leaf in trees.flatten(state.stats).items():
        np.testing.assert_array_equal(trees.flatten(second.stats)[path], leaf)
    assert "hidden01/dense/kernel" in second.values and second.step == 0
