"""Position tables of image networks, resampled to another grid."""

import math

import numpy as np


def resample(table: np.ndarray, tokens: int, how: str) -> np.ndarray:
    """`table` `[1 + N, D]`, class token first, with its N patches as `tokens - 1`.

    Both grids are square. An unchanged grid is returned as it is.

    Args:
      table: `[1 + N, D]`, or `[N, D]` of a network whose class token has no position:
        it gets zeros.
      tokens: rows of the result.
      how: `"cubic"` as PyTorch's bicubic (DINOv2, transformers), `"antialiased"` the
        same with antialiasing (timm), `"linear"` with corners on corners (vit_jax,
        big_vision).

    Raises:
      ValueError: the table is no square grid.
    """
    table = np.asarray(table, np.float64)
    if math.isqrt(len(table)) ** 2 == len(table):
        table = np.concatenate([np.zeros_like(table[:1]), table])
    old, new = math.isqrt(len(table) - 1), math.isqrt(tokens - 1)
    if old * old != len(table) - 1:
        raise ValueError(f"{len(table)} positions are no square grid and a class token")
    if old == new:
        return table
    across = _matrix(old, new, how)
    grid = table[1:].reshape(old, old, -1)
    grid = np.einsum("ai,bj,ijd->abd", across, across, grid, optimize=True)
    return np.concatenate([table[:1], grid.reshape(new * new, -1)])


def _matrix(old: int, new: int, how: str) -> np.ndarray:
    """`[new, old]`: how much of each old point is in each new one; rows sum to 1."""
    points = np.arange(old)
    if how == "linear":
        where = np.linspace(0, old - 1, new)
        return np.maximum(0, 1 - np.abs(where[:, None] - points))
    where = (np.arange(new) + 0.5) * old / new - 0.5
    if how == "antialiased":
        wider = max(old / new, 1)
        matrix = _cubic((where[:, None] - points) / wider, -0.5)
        return matrix / matrix.sum(1, keepdims=True)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        point = np.floor(where).astype(int) + tap
        inside = np.clip(point, 0, old - 1)  # the border counts for what is outside
        np.add.at(matrix, (np.arange(new), inside), _cubic(where - point, -0.75))
    return matrix


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' convolution kernel with slope `a`, zero from a distance of 2 on."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
