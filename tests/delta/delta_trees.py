"""A base and a tuned tree that the tests of deltas share."""

import jax
import ml_dtypes
import numpy as np

from subtune_jax import delta


def base_tree():
    rng = np.random.default_rng(0)
    return {
        "block01": {"kernel": rng.normal(size=(20, 30)).astype(np.float32)},
        "block02": {
            "kernel": rng.normal(size=(20, 30)).astype(ml_dtypes.bfloat16),
            "bias": np.zeros(30, np.float32),
            "count": np.int32(3),
        },
    }


def tuned_tree():
    tree = jax.tree.map(np.array, base_tree())
    tree["block01"]["kernel"][3, 4] += 1
    tree["block02"]["bias"] += 1
    tree["head"] = {"kernel": np.ones((30, 2), np.float32)}
    return tree


def raw(tree):
    return {
        name: (array.dtype, array.shape, array.tobytes())
        for name, array in delta.flatten(tree).items()
    }
