"""Promises of the mask algebra."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subtune_jax.core import trees
from subtune_jax.selection import masks

PARAMS = {
    "stem": {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)},
    "pool": {},  # a block without parameters
    "body": {
        "norm": {"scale": np.zeros(4), "bias": np.zeros(4)},
        "attn": {"query": {"kernel": np.zeros((4, 2, 2))}},
    },
    "head": {"kernel": np.zeros((4, 2)), "temperature": np.zeros(())},
}
SHAPES = {path: leaf.shape for path, leaf in trees.flatten(PARAMS).items()}


@st.composite
def leaf_masks(draw, shape):
    """Every kind of leaf: Python, NumPy and JAX booleans that broadcast to `shape`."""
    dropped = draw(st.integers(0, len(shape)))
    short = tuple(draw(st.sampled_from([1, n])) for n in shape[dropped:])
    flags = np.random.default_rng(draw(st.integers(0, 99))).random(short) < 0.5
    if short == () and draw(st.booleans()):
        return bool(flags)
    return jnp.asarray(flags) if draw(st.booleans()) else flags


@st.composite
def whole_masks(draw):
    def pick(path, _):
        return draw(leaf_masks(SHAPES[path]))

    return trees.map_leaves(pick, PARAMS)


def wide(m):
    """The slow definition: every leaf of `m` repeated to its parameter's shape."""
    flat = trees.flatten(m)
    return {
        path: np.zeros(shape, bool) | np.asarray(flat[path])
        for path, shape in SHAPES.items()
    }


def assert_same(m, expected):
    assert jax.tree.structure(m) == jax.tree.structure(PARAMS)
    for path, flags in wide(m).items():
        np.testing.assert_array_equal(flags, expected[path], err_msg=path)


def structure(tree):
    return jax.tree.structure(tree)


@settings(deadline=None, max_examples=60)
@given(whole_masks(), whole_masks())
def test_the_algebra_is_that_of_the_full_arrays(a, b):
    assert_same(masks.invert(a), {p: ~f for p, f in wide(a).items()})
    both = {p: f | wide(b)[p] for p, f in wide(a).items()}
    assert_same(masks.union(a, b), both)
    common = {p: f & wide(b)[p] for p, f in wide(a).items()}
    assert_same(masks.intersect(a, b), common)
    reached = {p: f.any() for p, f in wide(a).items()}
    assert trees.flatten(masks.reach(a)) == reached
    assert all(type(r) is bool for r in trees.flatten(masks.reach(a)).values())


@settings(deadline=None, max_examples=60)
@given(whole_masks())
def test_count_expand_and_table_agree_with_the_full_arrays(m):
    expected = sum(flags.sum() for flags in wide(m).values())
    assert masks.count(PARAMS, m) == expected
    assert type(masks.count(PARAMS, m)) is int
    full = masks.expand(PARAMS, m)
    assert_same(full, wide(m))
    for path, flags in trees.flatten(full).items():
        assert (flags.shape, flags.dtype) == (SHAPES[path], bool)
    last = masks.table(PARAMS, m).splitlines()[-1].split()
    assert last[:3] == ["total", str(expected), "49"]


def test_table_counts_every_block():
    m = masks.from_regex(PARAMS, "stem/.*|body/norm/.*")
    rows = [line.split() for line in masks.table(PARAMS, m).splitlines()]
    assert rows == [
        ["block", "selected", "total", "share"],
        ["stem", "16", "16", "1.000000"],
        ["pool", "0", "0", "0.000000"],
        ["body", "8", "24", "0.333333"],
        ["head", "0", "9", "0.000000"],
        ["total", "24", "49", "0.489796"],
    ]


def test_from_regex_matches_whole_paths():
    m = masks.from_regex(PARAMS, ".*/kernel", skip=["head"])
    assert structure(m) == structure(PARAMS)
    paths = [path for path, flag in trees.flatten(m).items() if flag]
    assert paths == ["body/attn/query/kernel", "stem/kernel"]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("kernel", "'body/attn/query/kernel', 'head/kernel', 'stem/kernel'"),
        ("stem/kernl", "nearest of 7: 'stem/kernel'"),
        (".*/querry/.*", "nearest of 7: 'body/attn/query/kernel'"),
    ],
)
def test_a_pattern_that_matches_nothing_lists_near_misses(pattern, hint):
    with pytest.raises(ValueError) as error:
        masks.from_regex(PARAMS, pattern)
    assert repr(pattern) in str(error.value) and hint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_skipped_block_counts_as_no_match():
    with pytest.raises(ValueError, match="no path matches 'head/.*' in full"):
        masks.from_regex(PARAMS, "head/.*", skip=["head"])


def test_a_broken_pattern_is_a_value_error():
    with pytest.raises(ValueError, match="is no regular expression; .*unterminated"):
        masks.from_regex(PARAMS, "(")


def test_from_blocks_takes_whole_blocks():
    m = masks.from_blocks(PARAMS, ("body", "pool"))
    assert_same(m, {p: np.full(s, p.startswith("body/")) for p, s in SHAPES.items()})
    one = masks.from_blocks(PARAMS, "body")
    assert trees.flatten(one) == trees.flatten(m)
    with pytest.raises(ValueError, match="no block named 'bodi'; did you mean 'body'"):
        masks.from_blocks(PARAMS, ["stem", "bodi"])


def test_besides_is_what_a_pattern_adds():
    m = masks.from_blocks(PARAMS, "stem")
    assert masks.besides(PARAMS, m, None) is None
    rest = masks.besides(PARAMS, m, ".*/bias")
    assert [p for p, flag in trees.flatten(rest).items() if flag] == ["body/norm/bias"]


def spoil(path, leaf):
    """A good mask, with one leaf replaced; None leaves it out."""
    flat = trees.flatten(masks.from_regex(PARAMS, ".*")) | {path: leaf}
    return trees.nest({p: f for p, f in flat.items() if f is not None})


@pytest.mark.parametrize(
    ("path", "leaf", "message"),
    [
        ("stem/kernel", np.ones((3, 4)), "mask of 'stem/kernel' is float64; masks are"),
        ("stem/bias", 1, "mask of 'stem/bias' is int64; masks are booleans"),
        ("stem/bias", np.ones(3, bool), r"is \(3,\); it must broadcast to \(4,\)"),
        ("stem/bias", np.ones((1, 4), bool), r"is \(1, 4\); it must broadcast"),
        ("head/temperature", np.ones(1, bool), r"'head/temperature' is \(1,\); it"),
        ("stem/bias", None, "leaf 'stem/bias' is in one tree, not in the other"),
        ("stem/extra", True, "'stem/extra' is in one tree, .*; nearest of 7"),
    ],
)
@pytest.mark.parametrize("use", [masks.count, masks.expand, masks.table, masks.check])
def test_what_is_no_mask_is_refused_by_name(path, leaf, message, use):
    with pytest.raises(ValueError, match=message) as error:
        use(PARAMS, spoil(path, leaf))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("combine", [masks.union, masks.intersect])
def test_masks_of_different_trees_do_not_combine(combine):
    good = masks.from_regex(PARAMS, ".*")
    for bad, path in [(spoil("stem/bias", None), "stem/bias"), ({"a": True}, "a")]:
        with pytest.raises(ValueError, match=f"leaf '{path}' is in one tree"):
            combine(good, bad)
    with pytest.raises(ValueError, match="mask of 'stem/bias' is float64"):
        combine(good, spoil("stem/bias", np.ones(4)))
    with pytest.raises(ValueError, match=r"'stem/bias' are \(4,\) and \(3,\)"):
        three, four = np.ones(3, bool), np.ones(4, bool)
        combine(spoil("stem/bias", four), spoil("stem/bias", three))
    with pytest.raises(ValueError, match="mask of 'stem/bias' is float64"):
        masks.invert(spoil("stem/bias", np.ones(4)))


def test_fill_refuses_unknown_paths_and_wrong_shapes():
    with pytest.raises(ValueError, match="no leaf 'stem/bia'; nearest of 7: 'stem/bi"):
        masks.fill(PARAMS, {"stem/bia": True})
    with pytest.raises(ValueError, match="it must broadcast"):
        masks.fill(PARAMS, {"stem/bias": np.ones(5, bool)})


def test_shapes_of_86_million_parameters_are_enough_and_quick():
    block = {
        "qkv": (768, 2304),
        "out": (768, 768),
        "up": (768, 3072),
        "down": (3072, 768),
    }
    shapes = {
        f"block{n:02d}": {
            name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
            for name, shape in block.items()
        }
        for n in range(12)
    }
    start = time.process_time()
    m = masks.union(
        masks.from_regex(shapes, ".*"), masks.from_blocks(shapes, "block01")
    )
    assert masks.count(shapes, m) == 12 * 768 * (2304 + 768 + 3072 + 3072)
    assert masks.expand(shapes, m)["block00"]["qkv"]["kernel"].shape == (768, 2304)
    masks.table(shapes, m)
    assert time.process_time() - start < 1  # no array of that size was made
