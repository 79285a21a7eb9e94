"""Trials: their values, what they cost, what they refuse."""

import numpy as np
import pytest
from small_trials import STEPS, opened, small, trained

from subtune_jax.subtuning import cost_model, evaluator, trials


def test_a_trial_that_was_left_goes_on_as_if_it_had_not_been():
    testbed = opened(small())
    candidate = trials.candidate(testbed, ["hidden01"])
    whole = trials.value(testbed, candidate, 0, STEPS)
    part = trials.value(testbed, candidate, 0, 1)
    rest = trials.value(testbed, candidate, 0, STEPS)
    assert (part.trained, rest.trained) == (1, STEPS - 1)
    assert (rest.value, rest.loss) == (whole.value, whole.loss)
    assert not testbed.states


def test_a_trial_has_the_mean_loss_of_what_was_held_out():
    testbed = opened(small())
    candidate = trials.candidate(testbed, ["hidden01"])
    result = trials.value(testbed, candidate, 0, STEPS)
    _, logits = trained(testbed, candidate)
    wide = logits.astype(np.float64)
    labels = testbed.trainer.pool.labels[testbed.folds[0].held]
    own = wide[np.arange(len(wide)), labels]
    assert result.loss == pytest.approx(
        np.mean(np.log(np.exp(wide).sum(1)) - own), rel=1e-6
    )


def test_a_trial_that_diverges_has_a_value_and_comes_last():
    setup = small(optimizer={"learning_rate": 1e30, "name": "sgd"}, train_steps=8)
    testbed = opened(setup)
    candidate = trials.candidate(testbed, ["hidden01"])
    for until in (STEPS, 8):
        result = trials.value(testbed, candidate, 0, until)
        assert not np.isfinite(result.loss) and 0 <= result.value <= 1
        assert evaluator.worth([result._asdict()], 8) == -np.inf


def test_the_test_split_is_never_read():
    setup = small()

    def refuse(index):
        raise AssertionError(f"test example {index} was read")

    task = setup.task._replace(test=setup.task.test._replace(read=refuse))
    testbed = opened(setup._replace(task=task), folds=3)
    for number in range(3):
        trials.value(testbed, trials.candidate(testbed, ["hidden01"]), number, STEPS)


def test_masks_are_cut_into_folds_by_chance():
    task = {"name": "polyps", "examples": 60, "image_size": 16}
    testbed = opened(small("vit", task=task), folds=3)
    held = [fold.held for fold in testbed.folds]
    count = len(testbed.trainer.pool.labels)
    assert all(len(part) - count // 3 in (0, 1) for part in held)
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(count))


def test_a_fold_without_enough_examples_is_refused():
    with pytest.raises(ValueError, match="batch_size=50; a fold has 34 training"):
        opened(small(batch_size=50), folds=2)


@pytest.mark.parametrize("network", ["vit", "efficientnet_lite0"])
def test_a_step_costs_what_the_cost_model_says(network):
    backbone = {
        "efficientnet_lite0": {
            "name": network,
            "image_size": 64,
            "weights": None,
            "stages": ((1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (2, 5, 2, 6, 40)),
        },
        "vit": {"name": network, "variant": (64, 3, 2, 8, False), "image_size": 32},
    }[network]
    setup = small(network, backbone=backbone)
    testbed = opened(setup)
    cost = cost_model.cost_function(
        setup, lambda names: trials.candidate(testbed, names).trained
    )
    blocks = setup.backbone.blocks[:-1]
    for names in [blocks[:1], blocks[1:2], blocks[-2:-1], (blocks[1], blocks[-1])]:
        candidate = trials.candidate(testbed, names)
        result = trials.value(testbed, candidate, 0, STEPS)
        needed = cost(names)
        assert needed["parameters"] == trials.trainable(testbed, candidate)
        # The optimiser's own operations, on the head's elements too, come on top.
        own = trials.trainable(testbed, candidate)
        own += setup.variables.params["head"]["kernel"].size
        assert 0.85 * needed["flops"] <= result.step_flops
        assert result.step_flops <= 1.15 * needed["flops"] + 25 * own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds=1; it must be 0, or 2 or more"),
        ({"folds": -5}, "folds=-5; it must be 0, or 2 or more"),
        ({"seeds": 0}, "seeds=0; it must be 1 or more"),
        ({"halving": 1}, "halving=1; it must be 0, or 2 or more"),
        ({"halving": -2}, "halving=-2; it must be 0, or 2 or more"),
        ({"memory_gib": -1.0}, "memory_gib=-1.0, trials.disk_gib=16.0; they"),
        ({"disk_gib": -1.0}, "memory_gib=2.0, trials.disk_gib=-1.0; they must be 0"),
        (
            {"disk_gib": float("nan")},
            "memory_gib=2.0, trials.disk_gib=nan; they must be 0",
        ),
    ],
)
def test_what_makes_no_trials_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=rf"^trials\.{message}") as error:
        trials.make(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"folds": 2}, {"seeds": 2}, {"halving": 2}])
def test_the_least_that_makes_trials_is_taken(options):
    options_ = trials.make(**options)._asdict()
    assert options_ == trials.make()._asdict() | options
