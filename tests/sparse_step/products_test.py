"""What is summed over tokens for each neuron's few inputs, on every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subtune_jax.sparse_step import products


def of_taken(form):
    """`form`, for inputs that were taken before, as one of the whole operand."""
    return lambda x, dy, rows: form([x[:, row] for row in rows], dy)


FORMS = {
    "in_pieces": products.in_pieces,
    "at_once": products.at_once,
    "by_neuron": of_taken(products.by_neuron),
    "added": of_taken(products.added),
}


@pytest.mark.parametrize("tokens", [64, 6, 7])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("form", list(FORMS))
def test_each_platform_adds_up_the_selected_inputs_of_every_neuron(form, dtype, tokens):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((tokens, 5)), dtype)
    dy = jnp.asarray(rng.standard_normal((tokens, 3)), dtype)
    rows = np.array([[0, 4, 4], [1, 0, 2]])
    found = jax.jit(FORMS[form])(x, dy, jnp.asarray(rows, jnp.int32))
    wide, slopes = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    want = [[wide[:, i] @ slopes[:, o] for o, i in enumerate(row)] for row in rows]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
