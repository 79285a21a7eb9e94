"""What is not selected never moves: every method, every network, bit for bit."""

import functools
import importlib

import jax
import noise
import numpy as np
import pytest

from subtune_jax.commands import configs
from subtune_jax.core import devices, registry, trees
from subtune_jax.core import method as selectors
from subtune_jax.optim import optimizer, partition
from subtune_jax.training import evidence, program, setup, tuned
from subtune_jax.training.run import fit

STEPS = 50
NETWORKS, METHODS = registry.plugins("backbones"), registry.plugins("methods")
# One of each kind of selection on every network; each of the others on the network
# whose step compiles fastest, and one with each kind of moving mask on two more.
KINDS = ("blocks", "gps", "lora", "magnitude", "s2ft")
FAST = "mlp"
ALSO = {"bert": ("badam", "child_tuning_f", "last"), "resnet": ("child_tuning_f",)}
TRAINED = ("last", "magnitude")  # with batch statistics that move, where there are any
NORMED = ("efficientnet_lite0", "mlp", "resnet")


def tiny(package, name):
    return importlib.import_module(f"subtune_jax.{package}.{name}").TINY


SLOW = ("efficientnet_lite0", "resnet")  # of these the first kind and what is trained


def kinds():
    """(network, method, batch_norm), each network's together."""
    for network in NETWORKS:
        for method in METHODS:
            if method in (*KINDS, *ALSO.get(network, ())) or network == FAST:
                slow = network in SLOW and method != KINDS[1]
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(network, method, "frozen", marks=marks)
            if method in TRAINED and network in NORMED:
                yield network, method, "trained"


@functools.cache
def prepared(network):
    """A setup on noise, each third element of whose arrays is -0.0.

    That is what an update of +0.0 would turn into 0.0.
    """
    given = {
        "task": noise.task(network, 40, 16),
        "backbone": {"name": network, **tiny("backbones", network)},
        "method": {"name": "head"},
        "augment": {"flip": noise.network(network).encode is None},
        "batch_size": 8,
        "train_steps": STEPS,
        "trunk_cache": False,
    }
    made = setup.prepare(configs.complete(given))

    def odd_zeros(leaf):
        leaf = np.array(leaf)
        leaf.reshape(-1)[:: max(1, leaf.size // 3)] = -0.0
        return leaf

    params = jax.tree.map(odd_zeros, made.variables.params)
    below = {block: own for block, own in params.items() if block != "head"}
    return made._replace(
        base=made.base._replace(params=below),
        variables=made.variables._replace(params=params),
        devices=devices.choose("auto", jax.devices()[:1]),
    )


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


def held(ready, state):
    """All parameters as the devices hold them, by path."""
    parts = ready.fixed.frozen, state.values, state.partial
    return devices.to_host({path: x for part in parts for path, x in part.items()})


@pytest.fixture
def made(network):
    return prepared(network)


@pytest.mark.parametrize(("network", "method", "batch_norm"), list(kinds()))
def test_unselected_elements_never_move(network, method, batch_norm, made):
    selector = registry.load("methods", {"name": method, **tiny("methods", method)})
    chosen = optimizer.make(
        "sgd" if method == "random" else "adamw",
        learning_rate=1e-2,
        weight_decay=0.1,
        clip_norm=0.5,
        warmup_steps=5,
    )
    moves = selector.update is not selectors.hold
    plan = partition.make(
        made.variables,
        made.backbone.blocks,
        selector.init(evidence.make(made)),
        batch_norm=batch_norm,
        moves=moves,
    )
    ready = program.build(made, plan, chosen, STEPS, selector=selector)
    before = trees.flatten(made.variables.params)
    seen = [before | devices.to_host(ready.state.values)]

    def check(done, state, metrics):
        after = held(ready, state)
        for path, where in devices.to_host(state.moving.mask).items():
            now = np.zeros(before[path].shape, bool)
            if path in state.moving.base:
                now.reshape(-1)[where] = True
            else:
                now |= where
            # What is no longer selected goes back to the base, or stays as it was.
            old = before if selector.reverts else seen[-1]
            changed = bits(after[path]) != bits(old[path])
            assert not changed[~now].any(), (path, done)
        seen.append(after)

    state = fit(ready, STEPS, watch=check if moves else None).state
    params, mask = held(ready, state), trees.flatten(plan.mask)
    if state.moving is not None:
        mask |= devices.to_host(state.moving.ever)
    moved = 0
    for path, old in before.items():
        changed = bits(params[path]) != bits(old)
        still = ~np.broadcast_to(mask[path], old.shape)
        assert not changed[still.reshape(changed.shape)].any(), path
        moved += changed.sum()
    for name in set(plan.values) - set(before):  # arrays beside the leaves
        moved += (bits(params[name]) != bits(plan.values[name])).sum()
    # Of taps, differences of layers whose scores have fallen are at rest.
    share = 0.25 if method == "taps" else 0.5
    assert moved > share * sum(np.size(value) for value in plan.values.values())
    stats = trees.flatten(devices.to_host(state.stats))
    for path, old in trees.flatten(made.variables.stats).items():
        same = np.array_equal(bits(stats[path]), bits(old))
        assert same == (path.split("/")[0] not in plan.training), path
    shipped = tuned.variables(made, ready, state)
    assert tuned.frozen_unchanged(made, ready, state, shipped)
