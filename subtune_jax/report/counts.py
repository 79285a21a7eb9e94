"""What pictures of masks show: elements by block, inputs by neuron, overlaps.

Everything here runs on the host, in NumPy. Scores and masks are trees of arrays, or
dicts from paths `a/b/c` to arrays; the first name of a path is its block.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Params
from subtune_jax.selection import masks, score_arrays, stability


def selected(
    params: Params, m: Mask, blocks: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Block -> (elements selected, elements), in the order of `blocks`.

    Args:
      params: what `m` is a mask of; shapes are enough.
      m: mask; a single flag counts for all elements it stands for.
      blocks: from input to output; those without arrays are left out.

    Raises:
      ValueError: `m` is no mask of `params`, or an array is in none of `blocks`.
    """
    parts = _by_block(masks.expand(params, m), blocks)
    return {
        block: (sum(int(p.sum()) for p in some), sum(p.size for p in some))
        for block, some in parts.items()
    }


def mass(scores: Any, blocks: Sequence[str]) -> dict[str, float]:
    """Block -> share in [0, 1] of the sum of all scores, in the order of `blocks`.

    Raises:
      ValueError: a score is negative, infinite or NaN, all are 0, or an array is in
        none of `blocks`.
    """
    parts = _by_block(scores, blocks)
    for block, some in parts.items():
        if not all(np.isfinite(p).all() and (p >= 0).all() for p in some):
            raise ValueError(f"scores of {block!r}; they must be finite and 0 or more")
    sums = {b: float(sum(p.sum(dtype=float) for p in s)) for b, s in parts.items()}
    total = sum(sums.values())
    if not total:
        raise ValueError("scores that are all 0; they have no shares")
    return {block: each / total for block, each in sums.items()}


def inputs(
    m: Mask, neuron_axes: Mapping[str, Sequence[int]] | None = None
) -> np.ndarray:
    """For each neuron of all arrays, how many of its inputs are selected, `[neurons]`.

    Args:
      m: mask with arrays of the parameters' shapes; vectors have no inputs, and their
        elements are not counted.
      neuron_axes: as in `choose.top_per_neuron`.
    """
    arrays = {path: np.asarray(flags) for path, flags in trees.leaves(m).items()}
    axes = score_arrays.output_axes(arrays, neuron_axes)
    columns = [score_arrays.columns_of(arrays[p], axes[p]) for p in arrays if axes[p]]
    return np.concatenate([np.zeros(0, int), *(c.sum(0) for c in columns)])


def histogram(counts: np.ndarray) -> dict[str, int]:
    """Numbers of neurons with 0, 1, 2, 3-4, 5-8, ... inputs, up to the largest count.

    >>> histogram(np.array([0, 1, 1, 5]))
    {'0': 1, '1': 2, '2': 0, '3-4': 0, '5-8': 1}
    """
    bins = {"0": int(np.sum(counts == 0))}
    low, high = 1, 1
    while low <= max(counts, default=0):
        name = f"{low}" if low == high else f"{low}-{high}"
        bins[name] = int(np.sum((counts >= low) & (counts <= high)))
        low, high = high + 1, 2 * high
    return bins


def crossed(selections: Mapping[str, Mask]) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps of n masks and those expected by chance, `[n, n]` each.

    Both as `stability.overlap` defines them, of masks with arrays of the parameters'
    shapes.
    """
    count, flags = len(selections), list(selections.values())
    overlap, chance = np.ones((count, count)), np.ones((count, count))
    for i, j in np.ndindex(count, count):
        pair = stability.overlap(flags[i], flags[j])
        overlap[i, j], chance[i, j] = pair["overlap"], pair["expected_by_chance"]
    return overlap, chance


def _by_block(tree: Any, blocks: Sequence[str]) -> dict[str, list[np.ndarray]]:
    parts: dict[str, list[np.ndarray]] = {block: [] for block in blocks}
    for path, leaf in trees.leaves(tree).items():
        block = path.split("/")[0]
        if block not in parts:
            raise ValueError(f"{path!r} is in none of the blocks {list(blocks)}")
        parts[block].append(np.asarray(leaf))
    return {block: leaves for block, leaves in parts.items() if leaves}
