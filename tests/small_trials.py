"""Trials of a tiny network on drawn scenes, for the tests of subtuning."""

import importlib

import jax
import noise

from subtune_jax.commands import configs
from subtune_jax.core import devices
from subtune_jax.subtuning import trainer, trials
from subtune_jax.training import program, setup
from subtune_jax.training.run import fit

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
    whole = setup.prepare(configs.complete(given))
    return whole._replace(devices=devices.choose("shard_map", jax.devices()[:devices_]))


def opened(small_setup, **options):
    """The testbed of a setup."""
    return trials.prepare(small_setup, trials.make(**options))


def trained(testbed, candidate, number=0):
    """The last state of a trial, and the logits of what was held out."""
    own, built = trainer.training(testbed.trainer, candidate, testbed.folds[number])
    state = fit(built, STEPS).state
    return state, program.logits(built, state, own.validation)
