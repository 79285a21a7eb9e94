"""Stability: what stays of a choice with other batches and seeds; how it is spread.

Everything here runs on the host, in NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from subtune_jax.core import trees
from subtune_jax.core.contracts import Mask, Params
from subtune_jax.selection import masks


class _Sizes(NamedTuple):
    """Counts of two sets of elements; `shared_by_chance` is an expectation."""

    a: int = 0
    b: int = 0
    shared: int = 0
    shared_by_chance: float = 0.0


def overlap(a: Mask, b: Mask, params: Params | None = None) -> dict[str, Any]:
    """What two masks share, in all and block by block.

    Args:
      a: mask.
      b: mask of the same leaves.
      params: whose masks they are. None if the leaves have the parameters' shapes, as
        those of `choose` do: a single flag would count as one element.

    Returns:
      A dict of numbers in [0, 1] that JSON can hold:

      | key | number |
      |---|---|
      | `overlap` | `n(a and b) / max(n(a), n(b))` |
      | `jaccard` | `n(a and b) / n(a or b)` |
      | `expected_by_chance` | the mean `overlap` of random sets as large |
      | `blocks` | block -> the same three numbers |

      The random sets are drawn independently of each other, uniformly among those
      with as many elements of each array as `a` and `b` have. Of an array of n
      elements they share `n(a) n(b) / n` on average. The numbers of two empty sets
      are 1.

    Raises:
      ValueError: `a` or `b` is no mask, or they have not the same leaves and shapes.
    """
    if params is not None:
        a, b = masks.expand(params, a), masks.expand(params, b)
    masks.check(a, b)
    masks.check(b, a)
    others = trees.leaves(b)
    total, blocks = _Sizes(), {}
    for path, flags in trees.leaves(a).items():
        sizes = _compare(np.asarray(flags), np.asarray(others[path]))
        block = path.split("/")[0]
        blocks[block] = _add(blocks.get(block, _Sizes()), sizes)
        total = _add(total, sizes)
    each = {block: _numbers(sizes) for block, sizes in blocks.items()}
    return _numbers(total) | {"blocks": each}


def report(
    score_fn: Callable[[int, int], Any],
    choose_fn: Callable[[Any], Mask],
    counts_of_batches: Sequence[int],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """How much a choice depends on the number of batches and on the seed.

    Calls `score_fn` once for each number of batches and each seed, and keeps the
    masks of the largest number.

    Args:
      score_fn: (number of batches, seed) -> scores; the seed draws the batches, and
        those of a smaller number may be the first of those of a larger one.
      choose_fn: scores -> mask with arrays of the scores' shapes.
      counts_of_batches: the numbers, each 1 or more, all different.
      seeds: all different.

    Returns:
      A dict that JSON can hold:

      | key | what |
      |---|---|
      | `counts_of_batches`, `seeds` | as given, the counts sorted |
      | `with_largest` | a row for each smaller count: its choices with the largest's |
      | `between_seeds` | the choices of the largest count, each pair of seeds |

      A row of `with_largest` also has its number of `batches`. Every entry has the
      number of `pairs` it compares; `mean` and `min` of their `overlap`; the means of
      `jaccard` and `expected_by_chance`; and `blocks`, block -> mean overlap.
      `between_seeds` is None for one seed.

    Raises:
      ValueError: no counts or seeds, a count below 1, or one given twice.
    """
    for name, given in (("counts", counts_of_batches), ("seeds", seeds)):
        if not len(given) or len(set(given)) < len(given):
            raise ValueError(f"{name} {list(given)}; one or more, all different")
    counts = sorted(counts_of_batches)
    if counts[0] < 1:
        raise ValueError(f"counts {counts}; each must be 1 or more")
    largest = [choose_fn(score_fn(counts[-1], seed)) for seed in seeds]
    rows = []
    for count in counts[:-1]:
        pairs = [
            overlap(choose_fn(score_fn(count, seed)), most)
            for seed, most in zip(seeds, largest, strict=True)
        ]
        rows.append({"batches": int(count)} | _summary(pairs))
    crossed = [overlap(a, b) for i, a in enumerate(largest) for b in largest[:i]]
    return {
        "counts_of_batches": [int(count) for count in counts],
        "seeds": [int(seed) for seed in seeds],
        "with_largest": rows,
        "between_seeds": _summary(crossed) if crossed else None,
    }


def inputs(mask: Mask, params: Params | None = None) -> dict[str, dict[str, float]]:
    """From how many different inputs a choice takes the elements of each kernel.

    Where every neuron's element is of the same input, what is trained is one direction
    of the layer's input, as a bias is, however many elements are.

    Args:
      mask: what is selected.
      params: whose mask it is; None as in `overlap`.

    Returns:
      Path -> numbers, for every array of two or more axes, read as `[I, O]`, that is
      partly selected: `inputs`, how many have a selected element; `possible`, as many
      as there could be, min(I, elements); `largest_share` in [0, 1] of the elements,
      those of the input with most.

    Raises:
      ValueError: `mask` is no mask, or not of `params`.
    """
    whole = mask if params is None else masks.expand(params, mask)
    masks.check(whole, whole)  # its leaves are flags
    rows = {}
    for path, flags in trees.leaves(whole).items():
        if np.ndim(flags) > 1 and np.any(flags) and not np.all(flags):
            counts = np.reshape(flags, (-1, np.shape(flags)[-1])).sum(axis=1)
            rows[path] = {
                "inputs": int(np.count_nonzero(counts)),
                "possible": int(min(counts.size, counts.sum())),
                "largest_share": float(counts.max() / counts.sum()),
            }
    return rows


def _summary(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> float:
        return float(np.mean([pair[key] for pair in pairs]))

    blocks = {
        block: float(np.mean([pair["blocks"][block]["overlap"] for pair in pairs]))
        for block in pairs[0]["blocks"]
    }
    return {
        "pairs": len(pairs),
        "mean": mean("overlap"),
        "min": min(pair["overlap"] for pair in pairs),
        "jaccard": mean("jaccard"),
        "expected_by_chance": mean("expected_by_chance"),
        "blocks": blocks,
    }


def _compare(a: np.ndarray, b: np.ndarray) -> _Sizes:
    sizes = int(np.count_nonzero(a)), int(np.count_nonzero(b))
    by_chance = sizes[0] * sizes[1] / max(a.size, 1)
    return _Sizes(*sizes, int(np.count_nonzero(a & b)), by_chance)


def _add(left: _Sizes, right: _Sizes) -> _Sizes:
    return _Sizes(
        left.a + right.a,
        left.b + right.b,
        left.shared + right.shared,
        left.shared_by_chance + right.shared_by_chance,
    )


def _numbers(sizes: _Sizes) -> dict[str, float]:
    larger = max(sizes.a, sizes.b)
    if not larger:
        return {"overlap": 1.0, "jaccard": 1.0, "expected_by_chance": 1.0}
    return {
        "overlap": sizes.shared / larger,
        "jaccard": sizes.shared / (sizes.a + sizes.b - sizes.shared),
        "expected_by_chance": sizes.shared_by_chance / larger,
    }
