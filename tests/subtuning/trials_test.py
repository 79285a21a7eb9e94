"""Trials: short trainings of candidates, against the training that `train` does."""

import importlib

import jax
import noise
import numpy as np
import pytest

from subtune_jax.commands import configs
from subtune_jax.core import devices, registry, trees
from subtune_jax.core.method import Selection
from subtune_jax.data import dataset
from subtune_jax.optim import partition
from subtune_jax.selection import masks
from subtune_jax.subtuning import (
    activation_cache,
    block_trainer,
    cost_model,
    folds,
    trial_state,
    trials,
)
from subtune_jax.training import assembly, loop, setup

NETWORKS = registry.plugins("backbones")
STEPS = 4


def small(network="mlp", devices_=1, **more):
    """A setup of a tiny network on drawn scenes."""
    tiny = importlib.import_module(f"subtune_jax.backbones.{network}").TINY
    given = {
        "task": noise.task(network, 90, 32),
        "backbone": {"name": network, **tiny},
        "method": {"name": "head"},
        "optimizer": {
            "learning_rate": 1e-3,
            "clip_norm": 0.5,
            "weight_decay": 0.1,
            "probe_steps": 3,
        },
        "batch_size": 12,
        "train_steps": STEPS,
        **more,
    }
    made = setup.prepare(configs.complete(given))
    return made._replace(devices=devices.choose("shard_map", jax.devices()[:devices_]))


def opened(made, **options):
    return trials.open_trials(made, folds.make(**options))


def trained(tried, one, number=0):
    """The last state of a trial, and the logits of what was held out."""
    fold = tried.folds[number]
    state = block_trainer.begin(tried.course, one, fold)
    state = block_trainer.advance(tried.course, one, fold, state, STEPS)
    return state, block_trainer.logits(tried.course, one, fold, state, fold.held)


def probed(made):
    """The head that `train` starts from."""
    return devices.to_host(assembly.linear_probe(made)[1].values)


def by_train(made, mask, head=None):
    """The logits of the validation split after `train`'s own steps."""
    plan = partition.make(
        made.variables,
        made.backbone.blocks,
        Selection(mask),
        batch_norm=made.settings["batch_norm"],
    )
    values = probed(made) if head is None else head
    ready = assembly.assemble(made, plan, made.optimizer, STEPS, values=values)
    state, _ = loop.fit(ready.trainer, ready.state, 0, STEPS, lambda done, m: None)
    return assembly.logits(ready, state, made.validation)


def same(a, b):
    assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@pytest.fixture(scope="module", params=NETWORKS)
def begun(request):
    """A setup, its trials, and the head that `train` starts from: compiled once."""
    made = small(request.param)
    return made, opened(made), probed(made)


@pytest.mark.parametrize(
    "where", ["first", "last", pytest.param("both", marks=pytest.mark.slow)]
)
def test_a_trial_is_the_training_that_train_does(begun, where):
    made, tried, head = begun
    inner = made.backbone.blocks[:-1]
    own = [b for b in inner if trees.flatten(made.base.params.get(b, {}))]
    chosen = {"first": own[:1], "last": own[-1:], "both": [own[0], own[-1]]}[where]
    _, found = trained(tried, trials.candidate(tried, chosen))
    mask = masks.from_blocks(made.variables.params, chosen)
    same(found, by_train(made, mask, head))


CHANGES = {
    "batch statistics": {"batch_norm": "trained"},
    "augmentation": {"augment": {"flip": True, "crop": 0.5, "mixup": 0.2}},
    "a new head": {"optimizer": {"probe_steps": 0, "learning_rate": 1e-2}},
    "layer decay": {"optimizer": {"layer_decay": 0.5, "probe_steps": 3}},
    "half precision": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_is_the_training_that_train_does_with(change):
    made = small(**CHANGES[change])
    chosen = [made.backbone.blocks[1]]
    tried = opened(made)
    _, found = trained(tried, trials.candidate(tried, chosen))
    mask = masks.from_blocks(made.variables.params, chosen)
    if change == "a new head":
        plan = partition.make(made.variables, made.backbone.blocks, Selection(mask))
        ready = assembly.assemble(made, plan, made.optimizer, STEPS)
        state, _ = loop.fit(ready.trainer, ready.state, 0, STEPS, lambda d, m: None)
        expected = assembly.logits(ready, state, made.validation)
    else:
        expected = by_train(made, mask)
    if change == "half precision":
        assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)
    else:
        same(found, expected)


def test_a_trial_of_numbers_is_the_training_that_train_does():
    made = small("bert", task=noise.task("bert", 90, 8, regression=True))
    tried = opened(made)
    _, found = trained(tried, trials.candidate(tried, []))
    nothing = masks.from_blocks(made.variables.params, [])
    same(found, by_train(made, nothing))
    assert found.shape == (len(made.validation.labels), 1)


@pytest.mark.parametrize("network", ["mlp", "vit"])
def test_a_trial_may_train_single_arrays(network):
    made = small(network)
    paths = [p for p in trees.flatten(made.base.params) if p.endswith("kernel")][:2]
    tried = opened(made)
    one = trials.candidate(tried, paths)
    assert one.trained == tuple(paths)
    _, found = trained(tried, one)
    mask = masks.fill(made.variables.params, dict.fromkeys(paths, np.True_))
    same(found, by_train(made, mask))


def test_a_trial_is_the_same_on_eight_devices():
    chosen = ["hidden01"]
    both = []
    for count in (1, 8):
        tried = opened(small(devices_=count, batch_norm="trained"))
        both.append(trained(tried, trials.candidate(tried, chosen))[1])
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5)


def test_only_what_is_trained_moves():
    made = small("vit", optimizer={"learning_rate": 0.1, "weight_decay": 0.5})
    tried = opened(made)
    one = trials.candidate(tried, ["block02"])
    state, _ = trained(tried, one)
    assert set(state.values) == {"block02", "head"}
    base = trees.flatten(made.base.params)
    after = trial_state.network(tried.course, one, tried.folds[0])
    for block in ("embed", "block01", "norm"):
        for path, leaf in after[block].params.items():
            np.testing.assert_array_equal(leaf, base[f"{block}/{path}"])


def test_blocks_that_are_alike_share_every_program():
    shape = (16, 4, 2, 8, False)
    backbone = {"name": "vit", "variant": shape, "image_size": 16}
    tried = opened(small("vit", backbone=backbone))
    programs = tried.course.trunk.pieces.programs
    counts = []
    for number in (1, 2, 3, 4):
        trained(tried, trials.candidate(tried, [f"block0{number}"]))
        counts.append(len(programs))
    # The last one has no block like it above that would be run frozen.
    assert counts[0] == counts[1] == counts[2] == counts[3]
    trained(tried, trials.candidate(tried, ["block01", "block03"]))
    trained(tried, trials.candidate(tried, ["block02", "block03", "block04"]))
    # A trained block above a trained one passes a gradient on: three programs more
    # (forward, back, and the sum of squares of three blocks and of four).
    assert len(programs) <= counts[0] + 4


def test_what_enters_a_block_is_computed_once_for_all_seeds_and_folds(monkeypatch):
    made = small("vit", validation_examples=14)
    tried = opened(made, folds=2, seeds=2)
    calls = []
    forward = activation_cache.pieces_.forward
    monkeypatch.setattr(
        activation_cache.pieces_,
        "forward",
        lambda pieces, block, own, x: (
            calls.extend([block] * len(x)) or forward(pieces, block, own, x)
        ),
    )
    for number in range(4):
        trials.value(tried, trials.candidate(tried, ["block02"]), number, STEPS)
    count = len(made.train.labels) + len(made.validation.labels)
    rows = -(-count // 12) * 12  # of whole batches
    assert calls.count("embed") == rows
    # Features for the linear probes come from what enters block02, once more each.
    assert calls.count("block01") == rows


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_bounds_of_memory_and_disk_change_nothing_but_the_place(bounds, tmp_path):
    memory, disk = bounds
    made = small("vit")
    options = folds.make(memory_gib=memory, disk_gib=disk)
    tried = trials.open_trials(made, options, tmp_path)
    _, found = trained(tried, trials.candidate(tried, ["block02"]))
    kept = tried.course.trunk.kept
    _, expected = trained(opened(made), trials.candidate(tried, ["block02"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if not memory and not disk:
        assert not kept
        return
    assert {"block02", "head"} <= set(kept)
    assert all(isinstance(x, np.memmap) == (not memory) for x in kept.values())
    assert bool(list(tmp_path.glob("*/*"))) == (not memory)


def test_a_bound_of_memory_is_kept():
    made = small("vit")
    tried = opened(made)
    one = trials.candidate(tried, ["block01"])
    trained(tried, one)
    first = tried.course.trunk.kept["block01"].nbytes
    tried = trials.open_trials(made, folds.make(memory_gib=1.5 * first / (1 << 30)))
    for block in ("block01", "block02", "norm"):
        trained(tried, trials.candidate(tried, [block]))
    kept = tried.course.trunk.kept.values()
    assert sum(x.nbytes for x in kept if not isinstance(x, np.memmap)) <= 1.5 * first
    assert any(isinstance(x, np.memmap) for x in kept)


def test_a_trial_that_was_left_goes_on_as_if_it_had_not_been():
    tried = opened(small())
    one = trials.candidate(tried, ["hidden01"])
    whole = trials.value(tried, one, 0, STEPS)
    part = trials.value(tried, one, 0, 1)
    rest = trials.value(tried, one, 0, STEPS)
    assert (part.trained, rest.trained) == (1, STEPS - 1)
    assert (rest.value, rest.loss) == (whole.value, whole.loss)
    assert not tried.states


@pytest.mark.parametrize("devices_", [1, 8])
def test_what_is_read_in_bulk_is_what_single_batches_give(devices_):
    below = opened(small(devices_=devices_)).course.trunk
    size, everything = below.rows.batch_size, np.arange(67)
    found = [*activation_cache.portions(below, everything)]
    assert [len(some) for some in found] == [
        activation_cache.BULK * size,
        size,
        67 - 5 * size,
    ]
    np.testing.assert_array_equal(np.concatenate(found), everything)
    bulk = activation_cache.read(below, "hidden02", found[0])[: len(found[0])]
    parts = [
        activation_cache.read(below, "hidden02", found[0][first : first + size])[:size]
        for first in range(0, len(found[0]), size)
    ]
    np.testing.assert_allclose(bulk, np.concatenate(parts), rtol=1e-5, atol=1e-6)


def test_a_trial_has_the_mean_loss_of_what_was_held_out():
    tried = opened(small())
    one = trials.candidate(tried, ["hidden01"])
    found = trials.value(tried, one, 0, STEPS)
    _, logits = trained(tried, one)
    wide = logits.astype(np.float64)
    labels = tried.course.trunk.images.labels[tried.folds[0].held]
    own = wide[np.arange(len(wide)), labels]
    assert found.loss == pytest.approx(
        np.mean(np.log(np.exp(wide).sum(1)) - own), rel=1e-6
    )


def test_a_random_block_is_not_the_bases():
    made = small()
    tried = opened(made)
    frozen = trials.candidate(tried, [], ["hidden02"])
    state, _ = trained(tried, frozen)
    assert set(state.values) == {"head"}
    mine = trial_state.network(tried.course, frozen, tried.folds[0])
    base = made.base.params["hidden02"]["dense"]["kernel"]
    assert not np.array_equal(mine["hidden02"].params["dense/kernel"], base)
    np.testing.assert_array_equal(
        mine["hidden01"].params["dense/kernel"],
        made.base.params["hidden01"]["dense"]["kernel"],
    )
    again = trials.candidate(tried, ["hidden02"], ["hidden02"])
    begun = block_trainer.begin(tried.course, again, tried.folds[0])
    np.testing.assert_array_equal(
        begun.values["hidden02"]["dense/kernel"],
        mine["hidden02"].params["dense/kernel"],
    )


def test_a_second_stage_starts_where_the_first_ended():
    tried = opened(small())
    one = trials.candidate(tried, ["hidden02"])
    whole = trials.candidate(tried, ["hidden01", "hidden02"])
    state, _ = trained(tried, one)
    second = block_trainer.begin(tried.course, whole, tried.folds[0], state)
    for block in ("hidden02", "head"):
        for path, leaf in state.values[block].items():
            np.testing.assert_array_equal(second.values[block][path], leaf)
    assert "hidden01" in second.values and second.step == 0


@pytest.mark.parametrize("network", ["vit", "efficientnet_lite0"])
def test_a_step_costs_what_is_priced(network):
    backbone = {
        "efficientnet_lite0": {
            "name": network,
            "image_size": 64,
            "weights": None,
            "stages": ((1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (2, 5, 2, 6, 40)),
        },
        "vit": {"name": network, "variant": (64, 3, 2, 8, False), "image_size": 32},
    }[network]
    made = small(network, backbone=backbone)
    tried = opened(made)
    price = cost_model.pricer(made, lambda one: trials.candidate(tried, one).trained)
    blocks = made.backbone.blocks[:-1]
    for one in [blocks[:1], blocks[1:2], blocks[-2:-1], (blocks[1], blocks[-1])]:
        chosen = trials.candidate(tried, one)
        result = trials.value(tried, chosen, 0, STEPS)
        needed = price(one)
        assert needed["parameters"] == trials.trainable(tried, chosen)
        # The optimiser's own operations, on the head's elements too, come on top.
        own = trials.trainable(tried, chosen)
        own += made.variables.params["head"]["kernel"].size
        assert 0.85 * needed["flops"] <= result.step_flops
        assert result.step_flops <= 1.15 * needed["flops"] + 25 * own


def test_texts_are_read_no_longer_than_the_longest_of_them():
    backbone = noise.network("bert")
    few = backbone.encode([{"text": "a b"}, {"text": "a"}])
    parts = [dataset.tokens(few[i : i + 1], np.arange(1), (4, 5, 8)) for i in (0, 1)]
    both = trials.join(*parts)
    assert both.read(np.array([1, 0])).shape == (2, 8, 2)
    cut = activation_cache.cut(both).read(np.array([1, 0]))
    assert cut.shape == (2, 4, 2)
    np.testing.assert_array_equal(cut[:, : few.shape[1]], few[::-1])


def test_the_test_split_is_never_read():
    made = small()

    def refuse(index):
        raise AssertionError(f"test example {index} was read")

    task = made.task._replace(test=made.task.test._replace(read=refuse))
    tried = opened(made._replace(task=task), folds=3)
    for number in range(3):
        trials.value(tried, trials.candidate(tried, ["hidden01"]), number, STEPS)


def test_a_fold_without_enough_examples_is_refused():
    with pytest.raises(ValueError, match="batch_size=50; a fold has 34 training"):
        opened(small(batch_size=50), folds=2)
