"""Tuned tasks of one base, what separate models answer, and a server of all."""

import functools
from types import SimpleNamespace

import jax
import noise
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Variables
from subtune_jax.data import dataset
from subtune_jax.serving import multitask

SIZES = {"tile": 4, "batch": 8}


def tune(backbone, base, classes, *parts):
    """The base with a head, all leaves changed that have one of `parts` in the path."""
    rng = np.random.default_rng(classes)

    def move(path, leaf):
        if not any(part in f"/{path}" for part in parts):
            return leaf
        return (leaf * rng.uniform(0.5, 1.5, leaf.shape) + 0.01).astype(leaf.dtype)

    params, stats = trees.map_leaves(move, jax.tree.map(np.asarray, tuple(base)))
    head = backbone.init(jax.random.key(0), classes).params["head"]
    head = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), head)
    return Variables({**params, "head": head}, stats)


def alone(backbone, variables, images):
    """What a separate model answers; the base, features."""
    params, stats = variables
    below = {block: own for block, own in params.items() if block != "head"}
    x = features(backbone.apply, below, stats, dataset.normalize(backbone, images))
    if "head" in params:
        x = backbone.apply(params, stats, x, start="head")[0]
    return np.asarray(x)


@functools.partial(jax.jit, static_argnums=0)
def features(apply, params, stats, x):
    return apply(params, stats, x, stop="head")[0]


def close(answers, expected):
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)


def serve(name):
    """A network, a base and tasks of every kind of fork."""
    backbone = noise.network(name)
    base = backbone.load()
    first, late, later = (backbone.blocks[number] for number in (0, -3, -2))
    tuned = {
        "all": tune(backbone, base, 2, ""),
        "first": tune(backbone, base, 9, f"/{first}/"),
        "late": tune(backbone, base, 3, f"/{late}/", f"/{later}/"),
        "later": tune(backbone, base, 4, f"/{later}/"),
        "bias": tune(backbone, base, 5, "/bias"),
        "statistics": tune(backbone, base, 6, "/mean", "/var"),
        "head": tune(backbone, base, 7),
    }
    images = noise.raw(backbone, 11)
    whole = {**tuned, "base": base}
    expected = {name: alone(backbone, each, images) for name, each in whole.items()}
    server = multitask.join(backbone, base, tuned, **SIZES)
    return SimpleNamespace(**locals())
