"""Blocks that take turns, step by step, against their rules written out in loops."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.core import registry, trees
from subtune_jax.core.method import Evidence, Seen, Selection
from subtune_jax.selection import masks

BLOCKS = ("stem", "block1", "block2", "block3", "block4", "top", "head")
REPEATED = BLOCKS[1:5]


def make_evidence(seed=0, epoch_batches=1):
    leaves = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}
    params = {block: {"dense": dict(leaves)} for block in BLOCKS}
    return Evidence(params, BLOCKS, None, None, seed, epoch_batches)


def load(method, **arguments):
    return registry.load("methods", {"name": method, **arguments})


def flat(tree):
    return trees.flatten(tree)


def rotate(selector, selection, steps):
    """The blocks that are trained in each step, and the memory before it."""
    reach = {path for path, flag in flat(selection.reach).items() if flag}
    mask = {path: jnp.asarray(flat(selection.mask)[path]) for path in reach}
    memory = jax.tree.map(jnp.asarray, selection.memory)

    @jax.jit
    def update(step, mask, memory):
        seen = Seen(step, {}, {})
        moved = selector.update(seen, Selection(mask, memory=memory))
        assert moved.grads is None and moved.seeds is None
        return moved.selection.mask, moved.selection.memory

    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (mask, memory))
    trained, memories = [], []
    for step in range(steps):
        memories.append(jax.tree.map(np.asarray, memory))
        mask, memory = update(jnp.int32(step), mask, memory)
        assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), (mask, memory))
        assert all(flag.shape == () for flag in mask.values())
        by_block = collections.defaultdict(set)
        for path, flag in mask.items():
            by_block[path.split("/")[0]].add(bool(flag))
        assert all(len(flags) == 1 for flags in by_block.values())  # whole blocks
        trained.append({block for block, flags in by_block.items() if True in flags})
    assert update._cache_size() == 1
    return trained, memories


def ranks(data, number):
    """What the next draw of `number` blocks is, of a key in the memory."""
    key = jax.random.wrap_key_data(jnp.asarray(data))
    return np.asarray(jax.random.permutation(jax.random.split(key)[1], number))


def trained_by(selection):
    return {path.split("/")[0] for path, flag in flat(selection.mask).items() if flag}


@pytest.mark.parametrize(("count", "period"), [(1, 1), (2, 3), (4, 2)])
def test_lisa_trains_a_number_of_blocks_drawn_anew_every_period(count, period):
    selector = load("lisa", count=count, period_steps=period)
    selection = selector.init(make_evidence(seed=3))
    trained, memories = rotate(selector, selection, 6 * period)
    expected = trained_by(selection)
    assert len(expected) == count
    for step in range(6 * period):
        if step and step % period == 0:
            order = ranks(memories[step]["key"], 4)
            expected = {
                b for b, rank in zip(REPEATED, order, strict=True) if rank < count
            }
        assert trained[step] == expected, step
        moved = step and step % period == 0
        if step + 1 < len(memories):
            same = np.array_equal(memories[step]["key"], memories[step + 1]["key"])
            assert same != bool(moved)


def test_lisa_draws_every_set_of_blocks_as_often():
    selector = load("lisa", count=2, period_steps=1)
    trained, _ = rotate(selector, selector.init(make_evidence()), 600)
    counts = collections.Counter(map(frozenset, trained))
    assert set(counts) == {frozenset(s) for s in itertools.combinations(REPEATED, 2)}
    assert all(70 <= number <= 130 for number in counts.values())  # of 100 expected


def test_lisa_always_trains_what_is_outside():
    evidence = make_evidence()
    selection = load("lisa", count=1).init(evidence)
    outside = {path for path, flag in flat(selection.extras).items() if flag}
    assert {path.split("/")[0] for path in outside} == {"stem", "top"}
    reach = {path.split("/")[0] for path, flag in flat(selection.reach).items() if flag}
    assert reach == set(REPEATED)
    assert load("lisa", count=1, outside=False).init(evidence).extras is None
    few = load("lisa", count=1, pattern="block[12]").init(evidence)
    assert masks.count(evidence.params, few.reach) == 2 * 9
    assert masks.count(evidence.params, few.extras) == 4 * 9


@pytest.mark.parametrize("method", ["lisa", "badam"])
def test_the_first_draw_follows_the_seed_and_is_that_of_the_first_step(method):
    selector = load(method)
    sets = [
        trained_by(selector.init(make_evidence(seed))) for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert sets[0] == sets[1] and len(set(map(tuple, map(sorted, sets)))) > 1
    assert rotate(selector, selector.init(make_evidence()), 1)[0] == [sets[0]]


@pytest.mark.parametrize("order", ["random", "ascending", "descending"])
@pytest.mark.parametrize("period", [1, 3])
def test_badam_gives_every_block_its_turn_in_every_cycle(order, period):
    selector = load("badam", period_steps=period, order=order)
    selection = selector.init(make_evidence(seed=5))
    trained, memories = rotate(selector, selection, 3 * 4 * period + 2)
    turns, cycles = selection.memory["turns"], []
    expected = {
        "random": sorted(REPEATED, key=lambda block: int(turns[block])),
        "ascending": list(REPEATED),
        "descending": list(REPEATED)[::-1],
    }[order]
    for step, blocks in enumerate(trained):
        place = step // period % 4
        if order == "random" and step and step % (4 * period) == 0:
            drawn = ranks(memories[step]["key"], 4)
            expected = [REPEATED[i] for i in np.argsort(drawn)]
        assert blocks == {expected[place]}, step
        if place == 0:
            cycles.append(tuple(expected))
    assert order != "random" or len(set(cycles)) > 1


def test_badam_spreads_an_epoch_over_the_blocks():
    for epoch_batches, period in ((1, 1), (9, 2), (10, 3), (100, 25)):
        selection = load("badam").init(make_evidence(epoch_batches=epoch_batches))
        assert selection.memory["period_steps"] == period
        assert selection.memory["period_steps"].dtype == np.int32
    selection = load("badam", period_steps=7).init(make_evidence(epoch_batches=100))
    assert selection.memory["period_steps"] == 7


def test_badam_leaves_what_is_outside_alone_unless_it_is_named():
    evidence = make_evidence()
    plain = load("badam").init(evidence)
    assert plain.extras is None
    assert masks.count(evidence.params, plain.reach) == 4 * 9
    riding = load("badam", extras="top/.*").init(evidence).extras
    assert masks.count(evidence.params, riding) == 9
    everything = load("badam", pattern=".*", order="ascending", period_steps=2)
    trained, _ = rotate(everything, everything.init(evidence), 12)
    assert trained == [{block} for block in BLOCKS[:-1] for _ in range(2)]
    assert load("badam").moments == "reset"
    assert load("lisa").moments == "keep"


@pytest.mark.parametrize("method", ["lisa", "badam"])
def test_a_resumed_rotation_goes_on_as_it_would_have(method):
    selector = load(method, period_steps=2)
    selection = selector.init(make_evidence())
    whole, memories = rotate(selector, selection, 30)
    # A checkpoint holds the mask and the memory, as plain arrays.
    leaves = jax.tree.leaves(memories[10])
    assert all(leaf.dtype in (np.uint32, np.int32) for leaf in leaves)
    mask = {
        path: np.bool_(path.split("/")[0] in whole[9]) for path in flat(selection.mask)
    }
    half = selection._replace(mask=trees.nest(mask), memory=memories[10])
    reach = {path for path, flag in flat(half.reach).items() if flag}
    now = {path: jnp.asarray(mask[path]) for path in reach}
    for step in range(10, 30):
        moved = selector.update(Seen(jnp.int32(step), {}, {}), half._replace(mask=now))
        now, half = moved.selection.mask, moved.selection
        assert {p.split("/")[0] for p, flag in now.items() if flag} == whole[step]


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("lisa", {"count": 0}, "lisa count=0, period_steps=20; both must be 1 or more"),
        ("lisa", {"period_steps": 0}, "period_steps=0; both must be 1 or more"),
        ("lisa", {"count": 5}, r"lisa count=5 is outside \[1, 4\]; block1, block2"),
        ("lisa", {"pattern": "layer"}, "no path matches .*layer.*nearest"),
        ("badam", {"period_steps": -1}, "badam period_steps=-1; it must be 0 or more"),
        ("badam", {"order": "up"}, "badam order='up' is not known; there are ascend"),
        ("badam", {"pattern": "layer"}, "no path matches .*layer.*nearest"),
        ("badam", {"extras": "pooler/.*"}, "no path matches 'pooler.*nearest"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(method, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        load(method, **arguments).init(make_evidence())
    assert "\n" not in str(error.value)
