"""Operations counted from a network, against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from subtune_jax.core import flops, jaxprs
from subtune_jax.models import convolutions

M, K, H, N = 5, 7, 11, 3  # batch, inputs, hidden, outputs


def dense(trained, rest, x):
    weights = {**rest, **trained}
    return jnp.maximum(x @ weights["one"], 0.0) @ weights["two"]


DENSE = {"one": np.ones((K, H)), "two": np.ones((H, N))}
FIRST, SECOND, RELU = 2 * M * K * H, 2 * M * H * N, M * H


@pytest.mark.parametrize(
    ("trained", "backward"),
    [
        (("one", "two"), FIRST + SECOND + SECOND + RELU),  # dW1, dW2, dh, its ReLU
        (("one",), FIRST + SECOND + RELU),
        (("two",), SECOND),  # nothing below the trained layer
        ((), 0),
    ],
)
def test_a_dense_network_costs_what_is_counted_by_hand(trained, backward):
    part = {name: DENSE[name] for name in trained}
    rest = {name: DENSE[name] for name in DENSE if name not in part}
    counted = flops.needed(dense, part, rest, np.ones((M, K)))
    assert counted == (FIRST + RELU + SECOND, backward)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_costs_its_products_once_forward_and_twice_back(stride):
    x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 24))
    both = flops.needed(lambda a: convolutions.full(*a, stride), (x, kernel))
    products = 2 * (3 * 3 * 16) * (2 * (8 // stride) ** 2 * 24)
    assert both.forward == pytest.approx(products, rel=0.01)
    assert both.backward == pytest.approx(2 * products, rel=0.01)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolution_is_counted_by_its_definition_not_its_form(stride):
    x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((5, 5, 1, 16))
    depthwise = lambda kernel, x: convolutions.depthwise(x, kernel, stride)  # noqa: E731
    products = 2 * 5 * 5 * (2 * (8 // stride) ** 2 * 16)
    of_kernel = flops.needed(depthwise, kernel, x)
    entering = 2 * x.size  # where input and kernel meet, two empty sums
    assert products <= of_kernel.forward <= products + entering + kernel.size
    assert products <= of_kernel.backward <= products + entering + kernel.size


def test_two_uses_of_one_value_add_their_gradients():
    two = flops.needed(lambda w, x: (w * x) * (w * x * 2.0), jnp.ones(9), jnp.ones(9))
    # Forward five products (the fourth by 2); back: one each of w * x, twice, of
    # the 2, and two of the last; and `w`, read twice, adds.
    assert two == (4 * 9 + 0, (1 + 1 + 1 + 2) * 9 + 9)


def test_needed_agrees_with_the_compiler_where_it_adds_nothing():
    arguments = ({"one": DENSE["one"]}, {"two": DENSE["two"]}, np.ones((M, K)))
    step = jax.jit(jax.grad(lambda *given: dense(*given).sum()))
    big = jax.tree.map(lambda leaf: np.tile(leaf, [32] * leaf.ndim), arguments)
    counted = step.lower(*big).compile().cost_analysis()["flops"]
    needed = flops.needed(dense, *big)
    output = 2 * (32 * M) * (32 * H) * (32 * N)  # a gradient needs no output
    assert counted == pytest.approx(sum(needed) - output, rel=0.02)


@pytest.mark.parametrize("split", [True, False])
def test_operations_are_the_same_whether_the_compiler_counts_its_program_or_its_source(
    split, monkeypatch
):
    mesh = jax.make_mesh((8,), ("data",))
    rows, whole = PartitionSpec("data"), PartitionSpec()
    two = DENSE["two"].astype(np.float32)

    def step(one, x):
        slope = jax.grad(lambda one: jnp.maximum(x @ one, 0.0).dot(two).sum())(one)
        return jax.lax.pmean(slope, "data") if split else slope

    places = tuple(NamedSharding(mesh, spec) for spec in (whole, rows))
    one, x = jax.device_put((np.ones((64, H)), np.ones((8 * 64, 64))), places)
    if split:
        step = jax.shard_map(step, mesh=mesh, in_specs=(whole, rows), out_specs=whole)
    lowered = jax.jit(step).lower(one, x)
    compiled = lowered.compile()
    expected = jaxprs.counted(lowered, compiled, 8, split=split)
    products = 2 * (8 * 64) * (64 * H * 2 + H * N)  # forward, the weight's, the ReLU's
    assert expected == pytest.approx(products, rel=0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jaxprs.counted(lowered, compiled, 8, split=split)
    assert found == pytest.approx(expected, rel=0.02)


def test_all_reduced_adds_up_the_shapes_of_all_reduces():
    text = """
      %a = f32[3,4]{1,0} all-reduce(%x), replica_groups={}
      %b = (f32[10]{0}, bf16[7]{0}, pred[]) all-reduce(%y, %z, %p)
      %c = f32[1000]{0} add(%a, %all-reduce.3)
      %d = s32[] all-reduce-start(%q)
      %e = s32[] all-reduce-done(%d)
    """
    assert flops.all_reduced(text) == 4 * 12 + (40 + 14 + 1) + 4
