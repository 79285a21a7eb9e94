"""The stopping rule: scores of as few batches as leave the choice unchanged."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from subtune_jax.core.contracts import Mask, Params
from subtune_jax.core.devices import Devices
from subtune_jax.scores import gradient_scores
from subtune_jax.scores.gradient_scores import Loss
from subtune_jax.selection import stability


class Until(NamedTuple):
    """When scores are good enough: the choice no longer changes.

    Attributes:
      overlap: in [0, 1]; of the choices of two checks in a row, as
        `stability.overlap` defines it, at least this.
      every_batches: from one check to the next, 1 or more.
      choose: scores -> mask; it may read the scores, not keep them.
    """

    overlap: float
    every_batches: int
    choose: Callable[[Params], Mask]


class Gathered(NamedTuple):
    """Scores, and what they took.

    Attributes:
      scores: of the batches used.
      used_batches: how many they are.
      overlaps: of each check but the first with the one before it.
    """

    scores: Params
    used_batches: int
    overlaps: tuple[float, ...]


def until_stable(
    loss_fn: Loss,
    params: Params,
    batches: Iterable[Any],
    reduce: str,
    until: Until,
    devices: Devices | None = None,
) -> Gathered:
    """`scores.gradient` of as many batches as it takes until the choice is stable.

    The scores are those `scores.gradient` gives for the first `used_batches`. If the
    batches end before, all of them are used; the last of `overlaps` is then too small.
    A choice that has settled need not be the one of an endless stream: see
    `stability.report`.

    Args:
      loss_fn: as in `scores.gradient`.
      params: as in `scores.gradient`.
      batches: as in `scores.gradient`; no more are read than are used.
      reduce: as in `scores.gradient`.
      until: when to stop.
      devices: as in `scores.gradients`.

    Raises:
      ValueError: as in `scores.gradient`, or `until` is out of its ranges.
    """
    if not 0 <= until.overlap <= 1 or until.every_batches < 1:
        numbers = f"overlap={until.overlap}, every_batches={until.every_batches}"
        raise ValueError(f"until {numbers}; they must be in [0, 1], and 1 or more")
    sums = gradient_scores.sums_by_batch(loss_fn, params, batches, (reduce,), devices)
    overlaps: list[float] = []
    before, used, total = None, 0, {}
    for used, total in enumerate(sums, 1):
        if used % until.every_batches:
            continue
        mask = until.choose(gradient_scores.reduced(total, devices)[reduce])
        if before is not None:
            overlaps.append(stability.overlap(before, mask)["overlap"])
            if overlaps[-1] >= until.overlap:
                break
        before = mask
    return Gathered(
        gradient_scores.reduced(total, devices)[reduce], used, tuple(overlaps)
    )
