"""S2FT: whole parts, drawn once for all the arrays that they couple."""

import jax
import numpy as np
import pytest

from subtune_jax.backbones import vit
from subtune_jax.core import registry, trees
from subtune_jax.core.method import Evidence

WIDTH, HEADS = 16, 2


@pytest.fixture(scope="module")
def evidence():
    backbone = vit.make(variant=(WIDTH, 2, HEADS, 8, False), image_size=16)
    params = jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), 3).params
    return Evidence(params, backbone.blocks, lambda params, batch: 0.0, lambda n: [])


def select(evidence, seed=0, **arguments):
    selector = registry.load("methods", {"name": "s2ft", **arguments})
    return trees.flatten(selector.init(evidence._replace(seed=seed)).mask)


def lines(flags, axis):
    """Which slices along `axis` are marked; all of a slice is, or nothing."""
    parts = np.moveaxis(np.asarray(flags), axis, 0).reshape(flags.shape[axis], -1)
    assert (parts.all(1) == parts.any(1)).all()
    return parts.any(1)


def test_channels_are_columns_of_one_matrix_and_the_same_rows_of_the_next(evidence):
    flags = select(evidence, part="channels", fraction=0.1)
    for block in ("block01", "block02"):
        columns = lines(flags[f"{block}/fc1/kernel"], 1)
        np.testing.assert_array_equal(columns, lines(flags[f"{block}/fc2/kernel"], 0))
        np.testing.assert_array_equal(columns, flags[f"{block}/fc1/bias"])
        assert columns.sum() == 6  # a tenth of 64
    assert {path.split("/")[1] for path, flag in flags.items() if np.any(flag)} == {
        "fc1",
        "fc2",
    }


def test_what_is_released_trains_rows_of_the_down_projection_alone(evidence):
    flags = select(evidence)
    marked = {path for path, flag in flags.items() if np.any(flag)}
    assert marked == {"block01/fc2/kernel", "block02/fc2/kernel"}
    assert lines(flags["block01/fc2/kernel"], 0).sum() == 2  # 3 % of 64


def test_heads_go_through_four_matrices(evidence):
    width = WIDTH // HEADS
    flags = select(evidence, part="heads", fraction=0.5, head_width=width)
    query = lines(flags["block01/attn/query/kernel"], 1)
    assert query.reshape(HEADS, width).all(1).sum() == 1 == query.sum() // width
    for name in ("key", "value"):
        own = lines(flags[f"block01/attn/{name}/kernel"], 1)
        np.testing.assert_array_equal(query, own)
        np.testing.assert_array_equal(query, flags[f"block01/attn/{name}/bias"])
    np.testing.assert_array_equal(query, lines(flags["block01/attn/out/kernel"], 0))
    assert not np.any(flags["block01/attn/out/bias"])


def test_neurons_are_a_share_of_every_kernel(evidence):
    flags = select(evidence, part="neurons", fraction=0.25)
    for path, leaf in trees.flatten(evidence.params).items():
        if path.endswith("kernel") and not path.startswith("head"):
            assert lines(flags[path], -1).sum() == round(0.25 * leaf.shape[-1])


def test_the_seed_draws(evidence):
    first, same, other = (select(evidence, seed) for seed in (0, 0, 1))
    path = "block01/fc2/kernel"
    np.testing.assert_array_equal(first[path], same[path])
    assert np.any(first[path] != other[path])


def test_a_network_without_such_parts_is_refused(evidence):
    other = evidence._replace(params={"a": {"kernel": np.ones((3, 3))}, "head": {}})
    with pytest.raises(ValueError, match="no path ends in fc1"):
        select(other, part="channels")
    with pytest.raises(ValueError, match="s2ft part='rows' is not known; .*there are"):
        select(evidence, part="rows")
