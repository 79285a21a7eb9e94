"""Partitions keep the structure of any tree of parameters."""

import jax
import numpy as np

from subtune_jax.core.contracts import Variables
from subtune_jax.core.method import Selection
from subtune_jax.optim import partition


def test_lists_and_names_with_a_slash_keep_their_structure():
    params = {
        "layers": [np.ones((2, 3)), np.ones(3)],
        "net/lin": {"w": np.ones(2)},
        "none": {},
        "head": {"w": np.ones(4)},
    }
    mask = jax.tree.map(lambda leaf: np.False_, params)
    mask["layers"][0] = np.eye(2, 3, dtype=bool)
    mask["net/lin"]["w"] = np.True_
    blocks = ("layers", "net", "head")
    parts = partition.make(Variables(params, {}), blocks, Selection(mask))
    assert jax.tree.structure(parts.mask) == jax.tree.structure(params)
    assert parts.values.keys() == {"layers/0", "net/lin/w", "head/w"}
    np.testing.assert_array_equal(np.sort(parts.positions["layers/0"]), [0, 4])
    counts = {"selected": 4, "extras": 0, "head": 4, "base": 11, "fraction": 4 / 11}
    assert parts.counts == counts
