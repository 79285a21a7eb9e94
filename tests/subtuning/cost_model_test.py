"""Promises of the cost model, against one trace of all that a step needs."""

import functools
import importlib
import itertools

import jax
import noise
import numpy as np
import pytest

from subtune_jax.commands import configs
from subtune_jax.core import devices, flops, registry, trees
from subtune_jax.subtuning import cost_model
from subtune_jax.training import setup

BATCH = 4
NETWORKS = registry.plugins("backbones")


@pytest.fixture(scope="module", params=NETWORKS)
def made(request):
    """A setup of a tiny network."""
    tiny = importlib.import_module(f"subtune_jax.backbones.{request.param}").TINY
    given = {
        "task": noise.task(request.param, 64, 16),
        "backbone": {"name": request.param, **tiny},
        "method": {"name": "head"},
        "batch_size": BATCH,
    }
    where = devices.choose("shard_map", jax.devices()[:1])
    return setup.prepare(configs.complete(given))._replace(devices=where)


def leaves_of(made, one):
    """Paths of the leaves of the base that a set of blocks, or of arrays, holds."""
    flat = trees.flatten(made.base.params)
    return [path for path in flat if path in one or path.split("/")[0] in one]


def costs(made):
    return cost_model.cost_function(made, lambda names: leaves_of(made, names))


def inner(made):
    """The blocks below the head that have parameters."""
    owners = {path.split("/")[0] for path in trees.flatten(made.base.params)}
    return [block for block in made.backbone.blocks[:-1] if block in owners]


def slow_flops(made, one):
    """Operations of everything from the earliest trained block on, in one function."""
    flat = trees.flatten(made.variables.params)
    chosen = leaves_of(made, one)
    trained = {p: x for p, x in flat.items() if p in chosen or p.startswith("head/")}
    frozen = {p: x for p, x in flat.items() if p not in trained}
    order = made.backbone.blocks
    first = min(order.index(path.split("/")[0]) for path in trained)
    x = noise.entering(made.backbone, BATCH)
    if first:
        below = functools.partial(made.backbone.apply, stop=order[first])
        x, _ = jax.eval_shape(below, *made.variables, x)

    def logits(trained, frozen, x):
        params = trees.nest({**frozen, **trained})
        stats = made.variables.stats
        return made.backbone.apply(params, stats, x, start=order[first])[0]

    return sum(flops.needed(logits, trained, frozen, x))


def some_sets(made):
    """None, each, each pair and all of the blocks, and some arrays."""
    blocks, paths = inner(made), list(trees.flatten(made.base.params))
    sizes = (0, 1, 2, len(blocks))
    found = [one for size in sizes for one in itertools.combinations(blocks, size)]
    rng = np.random.default_rng(0)
    drawn = [rng.choice(paths, 3, replace=False) for _ in range(3)]
    return [*dict.fromkeys(found), (paths[-1],), *map(tuple, drawn)]


def test_parameters_are_those_of_the_base_that_are_trained(made):
    cost, flat = costs(made), trees.flatten(made.base.params)
    for one in some_sets(made):
        count = 0
        for path in leaves_of(made, one):
            count += int(np.prod(flat[path].shape))
        assert cost(one)["parameters"] == count
    everything = sum(leaf.size for leaf in flat.values())
    assert cost(tuple(inner(made)))["parameters"] == everything
    assert cost(())["parameters"] == 0


def test_flops_are_those_of_the_whole_suffix_as_one_function(made):
    cost = costs(made)
    for one in some_sets(made):
        assert cost(one)["flops"] == slow_flops(made, one)


def test_more_blocks_never_cost_less(made):
    cost = costs(made)
    for one in some_sets(made):
        before = cost(one)
        for block in inner(made):
            after = cost((*one, block))
            assert after["flops"] >= before["flops"]
            assert after["parameters"] >= before["parameters"]


def test_the_earliest_block_decides_what_the_trunk_saves(made):
    cost = costs(made)
    # An embedding that is looked up has no product, and so none to differentiate.
    paths = [path for path in trees.flatten(made.base.params) if "kernel" in path]
    blocks = [block for block in inner(made) if any(p.startswith(block) for p in paths)]
    alone = [cost((block,))["flops"] for block in blocks]
    assert alone == sorted(alone, reverse=True)
    assert len(set(alone)) == len(alone)
    assert cost(())["flops"] < alone[-1]
    for late in range(2, len(blocks)):
        # A later block adds its own weights to the step, whichever is the earliest.
        added = {
            cost((early, blocks[late]))["flops"] - cost((early,))["flops"]
            for early in blocks[:late]
        }
        assert len(added) == 1 and min(added) > 0


def test_the_order_in_which_a_set_is_named_is_of_no_account(made):
    cost, blocks = costs(made), inner(made)
    assert cost(tuple(blocks)) == cost(tuple(reversed(blocks)))


def test_a_cost_grows_with_the_batch(made):
    cost, one = costs(made), tuple(inner(made))
    twice = {**made.settings, "batch_size": 2 * BATCH}
    larger = costs(made._replace(settings=twice))(one)
    assert larger["parameters"] == cost(one)["parameters"]
    # A norm's scale is made once, for any batch.
    assert larger["flops"] == pytest.approx(2 * cost(one)["flops"], rel=0.02)
