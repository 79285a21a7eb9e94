"""Promises that every method keeps, on every network."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import noise
import numpy as np
import pytest

from subtune_jax.core import method, registry, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.core.method import Evidence, Seen, Selection
from subtune_jax.optim import additive, dynamic_mask, mask_rule, optimizer, partition
from subtune_jax.selection import masks

METHODS = registry.plugins("methods")
SPARSE = ("random", "magnitude")
NETWORKS = registry.plugins("backbones")
STEPS = 8


def tiny(method):
    return importlib.import_module(f"subtune_jax.methods.{method}").TINY


def load(method):
    return registry.load("methods", {"name": method, **tiny(method)})


DYNAMIC = [name for name in METHODS if load(name).update is not method.hold]
STATIC = [name for name in METHODS if name not in DYNAMIC]


@pytest.fixture(scope="module", params=NETWORKS)
def evidence(request):
    """Random variables of a tiny network, and one batch of noise."""
    backbone = noise.network(request.param)
    fresh = jax.jit(backbone.init, static_argnums=1)
    variables = fresh(jax.random.key(0), 3)
    x = noise.entering(backbone, 4)

    def loss_fn(params, batch):
        logits, _ = backbone.apply(params, variables.stats, batch["x"])
        return jnp.mean(jnp.square(logits - batch["target"]))

    def batches(count):
        return [{"x": x, "target": np.eye(3)[[0, 1, 2, 0]]}] * count

    return Evidence(
        variables.params,
        backbone.blocks,
        loss_fn,
        batches,
        train_steps=STEPS,
        init=lambda key: jax.tree.map(np.asarray, fresh(key, 3).params),
    )


def select(method, evidence, **arguments):
    return registry.load("methods", {"name": method, **arguments}).init(evidence)


def full(evidence, mask):
    return trees.flatten(masks.expand(evidence.params, mask))


def paths(mask):
    return {path for path, flag in trees.flatten(masks.reach(mask)).items() if flag}


@pytest.fixture(scope="module")
def selection_of(evidence):
    """method -> its selection, made once for all the tests of a network."""
    return functools.cache(lambda method: load(method).init(evidence))


@pytest.mark.parametrize("method", METHODS)
def test_a_selection_is_a_mask_of_the_base(method, evidence, selection_of):
    selection = selection_of(method)
    for mask in [selection.mask, selection.extras]:
        if mask is None:
            continue
        masks.check(evidence.params, mask)
        assert jax.tree.structure(mask) == jax.tree.structure(evidence.params)
        assert not any(path.startswith("head/") for path in paths(mask))
    if selection.extras is not None:
        both = masks.intersect(selection.mask, selection.extras)
        assert masks.count(evidence.params, both) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_selection_adds_arrays_beside_the_base(method, evidence, selection_of):
    selection = selection_of(method)
    added = selection.additive
    if added is None:
        return
    assert masks.count(evidence.params, selection.mask) == 0
    additive.check(evidence.params, added)
    assert additive.count(added) == sum(x.size for x in added.values.values()) > 0
    flat = trees.flatten(evidence.params)
    merged = added.merge({path: flat[path] for path in added.paths}, added.values)
    named = {name.split("+")[0] for name in added.values}
    biases = {path for path in added.paths if path.endswith("bias")}
    assert set(merged) == set(added.paths) == named | biases
    assert all(merged[path].shape == flat[path].shape for path in added.paths)
    assert not any(path.startswith("head/") for path in added.paths)


@pytest.mark.parametrize("method", METHODS)
def test_a_selection_is_the_same_for_the_same_seed(method, evidence, selection_of):
    first, again = (
        # What merges additive arrays is a function: of these the arrays are compared.
        selection._replace(additive=selection.additive and selection.additive.values)
        for selection in (selection_of(method), load(method).init(evidence))
    )
    assert jax.tree.structure(first) == jax.tree.structure(again)
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize("method", STATIC)
def test_a_static_method_holds_still(method):
    selection = Selection({"a": np.True_})
    moved = load(method).update(Seen(jnp.int32(3), {}, {}), selection)
    assert moved.selection is selection
    assert moved.grads is None and moved.seeds is None


def begun(method, evidence, selection):
    """The rule, the values and the masks of a run of a dynamic method."""
    selector, variables = load(method), Variables(evidence.params, {})
    plan = partition.make(variables, evidence.blocks, selection, moves=True)
    rule = mask_rule.make(selector, optimizer.make(), plan)
    flat = trees.flatten(evidence.params)
    leaves = {path: jnp.asarray(flat[path]) for path in plan.places}
    state = dynamic_mask.begin(rule, plan.values, leaves, plan.moving, plan.memory)
    return plan.values, leaves, jax.tree.map(jnp.asarray, state)


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_dynamic_mask_keeps_its_form_and_its_reach(method, evidence, selection_of):
    """As traced, with a step that is not known: so it is in every step."""
    values, leaves, state = begun(method, evidence, selection_of(method))
    seen, selection = seen_at(0, values, leaves, state), Selection(state.mask)
    selection = selection._replace(memory=state.memory)
    moved = jax.eval_shape(load(method).update, seen, selection)
    forms = jax.eval_shape(lambda selection: selection, selection)
    assert moved.selection == forms
    reach = set() if state.base else paths(selection_of(method).reach or {})
    flat = trees.flatten(evidence.params)
    for path, what in forms.mask.items():
        if path in state.base:
            assert (what.dtype, what.ndim) == (np.int32, 1)
            continue
        assert path in reach and what.dtype == bool
        assert what.shape in ((), np.shape(flat[path]))
    for path, grad in (moved.grads or {}).items():
        assert grad.shape == np.shape(seen.grads[path])


@pytest.mark.parametrize("evidence", ["mlp"], indirect=True)
@pytest.mark.parametrize("method", DYNAMIC)
def test_a_dynamic_mask_moves_within_its_reach(method, evidence, selection_of):
    selection, flat = selection_of(method), trees.flatten(evidence.params)
    values, leaves, state = begun(method, evidence, selection)
    update, moves = jax.jit(load(method).update), 0
    now = Selection(state.mask, memory=state.memory)
    for step in range(STEPS):
        after = update(seen_at(step, values, leaves, state), now).selection
        pairs = zip(jax.tree.leaves(now), jax.tree.leaves(after), strict=True)
        moves += sum(bool((a != b).any()) for a, b in pairs)
        now = after
        for path in state.base:
            where = np.asarray(now.mask[path])
            assert (np.diff(where) > 0).all()  # sorted, and none of them twice
            assert 0 <= where[0] and where[-1] < flat[path].size
            assert len(where) == full(evidence, selection.mask)[path].sum()
    assert update._cache_size() == 1
    assert moves  # else the method would be static


def seen_at(step, values, leaves, state):
    """A step with random gradients, whole ones of leaves that move as positions."""
    rng = np.random.default_rng(step)
    grads = {
        path: jnp.asarray(rng.normal(size=np.shape(x)), jnp.float32)
        for path, x in {**values, **leaves}.items()
    }
    return Seen(jnp.int32(step), values, grads, leaves, state.base)


def test_full_and_head_are_everything_and_nothing(evidence):
    base = {p for p in trees.flatten(evidence.params) if not p.startswith("head/")}
    assert paths(select("full", evidence).mask) == base
    assert masks.count(evidence.params, select("head", evidence).mask) == 0
    assert paths(select("blocks", evidence, pattern=".*").mask) == base


def test_blocks_are_trained_whole(evidence):
    blocks = evidence.blocks[:1] + evidence.blocks[-2:-1]
    expected = {
        path for path in trees.flatten(evidence.params) if path.split("/")[0] in blocks
    }
    by_name = select("blocks", evidence, names=list(blocks))
    by_pattern = select("blocks", evidence, pattern="|".join(blocks))
    assert paths(by_name.mask) == paths(by_pattern.mask) == expected
    first = select("blocks", evidence, names=blocks[0])
    assert paths(first.mask) == {p for p in expected if p.startswith(f"{blocks[0]}/")}
    kernels = {p for p in trees.flatten(evidence.params) if p.endswith("kernel")}
    leaves = select("blocks", evidence, pattern=".*kernel")
    assert paths(leaves.mask) == {p for p in kernels if not p.startswith("head/")}


def test_last_counts_blocks_with_parameters_from_the_head(evidence):
    flat = trees.flatten(evidence.params)
    own = [b for b in evidence.blocks if any(p.startswith(f"{b}/") for p in flat)][:-1]
    for count in (1, len(own)):
        reached = paths(select("last", evidence, count=count).mask)
        assert {path.split("/")[0] for path in reached} == set(own[-count:])
    for count in (0, len(own) + 1):
        with pytest.raises(ValueError, match=rf"count={count} is outside \[1, "):
            select("last", evidence, count=count)


def test_bias_and_norm_find_their_leaves(evidence):
    flat = {p for p in trees.flatten(evidence.params) if not p.startswith("head/")}
    biases = {path for path in flat if re.search(r"\bbias$", path)}
    assert paths(select("bias", evidence).mask) == biases
    norms = {p.rsplit("/", 1)[0] for p in flat if p.endswith("/scale")}
    expected = {p for p in flat if p.rsplit("/", 1)[0] in norms}
    assert paths(select("norm", evidence).mask) == expected


def kernels(evidence):
    flat = trees.flatten(evidence.params)
    return {
        path: np.asarray(leaf)
        for path, leaf in flat.items()
        if path.endswith("kernel") and not path.startswith("head/")
    }


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("scope", ["neuron", "array", "network"])
@pytest.mark.parametrize("budget", [{"count": 3}, {"fraction": 0.1}])
def test_sparse_methods_select_what_was_budgeted(method, scope, budget, evidence):
    mask = select(method, evidence, scope=scope, **budget).mask
    assert paths(mask) <= set(kernels(evidence))
    flags = full(evidence, mask)

    def number(size):
        return budget.get("count") or max(int(0.1 * size + 0.5), 1)

    total = sum(kernel.size for kernel in kernels(evidence).values())
    if scope == "network":
        assert masks.count(evidence.params, mask) == number(total)
        return
    for path, kernel in kernels(evidence).items():
        if scope == "array":
            assert flags[path].sum() == number(kernel.size)
        else:
            columns = flags[path].reshape(-1, kernel.shape[-1])
            assert (columns.sum(0) == number(len(columns))).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("scope", ["neuron", "array", "network"])
def test_magnitude_takes_the_largest_or_the_smallest(scope, largest, evidence):
    mask = select(
        "magnitude", evidence, scope=scope, fraction=0.2, largest=largest
    ).mask
    flags, sizes = full(evidence, mask), kernels(evidence)
    groups = []
    for path, kernel in sizes.items():
        size = np.abs(kernel).reshape(-1, kernel.shape[-1])
        taken = flags[path].reshape(size.shape)
        split = scope == "neuron"
        groups += zip(size.T, taken.T, strict=True) if split else [(size, taken)]
    if scope == "network":
        both = zip(*groups, strict=True)
        groups = [[np.concatenate([x.ravel() for x in one]) for one in both]]
    for size, taken in groups:
        inside, outside = size[taken], size[~taken]
        if largest:
            assert inside.min() >= outside.max()
        else:
            assert inside.max() <= outside.min()


def test_random_masks_follow_the_seed(evidence):
    first, same, other = (
        full(evidence, select("random", evidence._replace(seed=seed), count=1).mask)
        for seed in (0, 0, 1)
    )
    assert all((first[path] == same[path]).all() for path in first)
    assert any((first[path] != other[path]).any() for path in first)


@pytest.mark.parametrize("method", SPARSE)
def test_extras_ride_along_apart_from_the_mask(method, evidence):
    plain = select(method, evidence, count=1)
    assert plain.extras is None
    extra = select(method, evidence, count=1, extras=r".*(bias|kernel)")
    jax.tree.map(np.testing.assert_array_equal, plain.mask, extra.mask)
    flat = trees.flatten(evidence.params)
    wanted = sum(
        leaf.size
        for path, leaf in flat.items()
        if re.search("(bias|kernel)$", path) and not path.startswith("head/")
    )
    selected = masks.count(evidence.params, plain.mask)
    assert masks.count(evidence.params, extra.extras) == wanted - selected


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("blocks", {"names": ["hiden"]}, "no base block named 'hiden'; .*there are"),
        ("blocks", {"names": ["head"]}, "no base block named 'head'"),
        ("blocks", {"pattern": "nothing"}, r"no path matches .*nothing.*; nearest of"),
        ("blocks", {"pattern": "("}, "is no regular expression"),
        ("blocks", {"pattern": "head"}, "no path matches .*head"),
        ("blocks", {}, r"names=\(\), pattern=None; exactly one of them is needed"),
        ("blocks", {"names": ["a"], "pattern": "a"}, "exactly one of them is needed"),
        ("bias", {"among": "nothing"}, "no path matches 'nothing' in full; nearest of"),
        ("random", {"count": 1, "among": "head/.*"}, "no path matches 'head/"),
        ("random", {"count": 1, "extras": "nothing"}, "no path matches 'nothing'"),
        ("lora", {"among": "nothing"}, "no path matches 'nothing' in full; nearest of"),
        ("lora", {"among": ".*bias"}, r"'.*bias' \(\d+,\) is no matrix; name"),
        ("lora", {"rank": 0}, "rank=0, alpha=8.0; they must be 1 or more, and above 0"),
        ("lora", {"alpha": 0.0}, "they must be 1 or more, and above 0"),
        ("ssf", {"among": "head/.*"}, "no path matches 'head/.*' in full; nearest of"),
        ("ia3", {"outputs": "nothing"}, "no path matches 'nothing' in full; nearest"),
        ("ia3", {"outputs": None, "inputs": ".*bias"}, r"'.*bias' .* is no matrix"),
        ("ia3", {"outputs": None, "inputs": None}, "None; one of them is needed"),
    ],
)
def test_what_is_not_there_is_refused(method, arguments, message, evidence):
    with pytest.raises(ValueError, match=message) as error:
        select(method, evidence, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", SPARSE)
def test_impossible_budgets_are_refused(method, evidence):
    total = sum(kernel.size for kernel in kernels(evidence).values())
    for scope in ("neuron", "array", "network"):
        with pytest.raises(
            ValueError, match=rf"count={total + 1} is outside \[1, \d+\]"
        ):
            select(method, evidence, scope=scope, count=total + 1)
    with pytest.raises(ValueError, match=r"fraction=2 is outside \[0, 1\]"):
        select(method, evidence, fraction=2)
    with pytest.raises(ValueError, match="exactly one of them is needed"):
        select(method, evidence)
    with pytest.raises(ValueError, match="no scope named 'row'; .*there are array"):
        select(method, evidence, scope="row", count=1)
