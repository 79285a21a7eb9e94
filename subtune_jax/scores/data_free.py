"""Scores that need no data: of the weights alone, or of nothing."""

import zlib
from typing import Any

import jax
import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Params


def magnitude(params: Params) -> Params:
    """`abs(params)`."""
    return jax.tree.map(lambda p: np.abs(np.asarray(p, np.float32)), params)


def random(params: Params, seed: int) -> Params:
    """Uniform scores in [0, 1), the same for a seed, a path and a shape.

    A leaf's scores do not depend on the other leaves. Of 86 M draws of 24 bits about
    five are equal to any one of them, so ties do not bias a choice.
    """

    def draw(path: str, leaf: Any) -> np.ndarray:
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        return rng.random(np.shape(leaf), np.float32)

    return trees.map_leaves(draw, params)


def low_rank(params: Params, rank: int) -> Params:
    """Magnitude of the best approximation of each matrix by one of rank `rank`.

    `abs(U_r S_r V_r)`, with the `rank` largest singular values and their vectors. The
    last axis is the output, as in `choose.top_per_neuron`: `[h, w, in, out]` is read
    as `[h * w * in, out]`. Where `rank` is no less than the shorter side of a matrix,
    its best approximation is itself. So it is for vectors and scalars, matrices of one
    row: their scores are their magnitudes.

    Args:
      params: tree of arrays, factorised on the host in float32.
      rank: singular values that are kept of each matrix, 1 or more.

    Raises:
      ValueError: `rank` is less than 1, or a matrix is not finite.

    Source: LIFT, arXiv:2506.00772, which takes the top k of each matrix. It scores
    anew as it trains, every 400 steps in its released code; this is its first choice.
    """
    if rank < 1 or rank != int(rank):
        raise ValueError(f"rank={rank}; it must be a whole number, 1 or more")

    def score(path: str, leaf: Any) -> np.ndarray:
        whole = np.asarray(leaf, np.float32)
        if whole.ndim < 2 or not whole.size:
            return np.abs(whole)
        matrix = whole.reshape(-1, whole.shape[-1])
        if not np.isfinite(matrix).all():
            raise ValueError(f"{path!r} has values that are not finite; it has no rank")
        if rank >= min(matrix.shape):
            return np.abs(whole)
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        near = (left[:, :rank] * values[:rank]) @ right[:rank]
        return np.abs(near).reshape(whole.shape)

    return trees.map_leaves(score, params)
