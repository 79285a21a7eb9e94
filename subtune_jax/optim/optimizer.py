"""Optimisers by name, over flat dicts of selected values."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import optax

from subtune_jax.core.registry import check_choice, near
from subtune_jax.optim import auto_rgn, dynamic_mask
from subtune_jax.optim import moments as moments_

CORES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": lambda b1, b2, epsilon, momentum: optax.scale_by_adam(b1, b2, epsilon),
    "adamw": lambda b1, b2, epsilon, momentum: optax.scale_by_adam(b1, b2, epsilon),
    "lion": lambda b1, b2, epsilon, momentum: optax.scale_by_lion(b1, b2),
    "sgd": lambda b1, b2, epsilon, momentum: optax.trace(momentum),
}
AGED = ("adam", "adamw")  # correct for the bias of young moments


class Optimizer(NamedTuple):
    """What a run optimises with.

    Attributes:
      transform: (steps, blocks, ages=None) -> transformation over `{path: values}`:
        `clip_norm`, then `rule`. With `ages`, path -> shape, elements of these leaves
        have ages of their own where the optimiser has any, see `moments`.
      rule: the same without clipping. What it does to a leaf depends on that leaf and
        on `treatment` of its path alone, but with Auto-RGN.
      treatment: (path, blocks) -> (does it decay, factor of its learning rate).
      clip_norm: bound on the global norm of the gradient; 0 for none.
      schedule: (steps) -> function of the step that gives the learning rate.
      rgn_steps: period of Auto-RGN, 0 for none: a rule that looks at all leaves.
      accumulate_steps: pieces a batch is processed in.
      ema: decay of the averaged values, 0 for none.
      probe_steps: steps of linear probing before the rest joins in (LP-FT).
      probe_learning_rate: of those steps.
      moving: semantics of masks that move, see `dynamic_mask`.
      moments: what becomes of moments where masks move, see `moments`; None for what
        the method says.
      decays: b1 and b2.
      ages: whether it corrects for the bias of young moments.
    """

    transform: Callable[..., optax.GradientTransformation]
    rule: Callable[..., optax.GradientTransformation]
    treatment: Callable[[str, tuple[str, ...]], tuple[bool, float]]
    clip_norm: float
    rgn_steps: int
    schedule: Callable[[int], optax.Schedule]
    accumulate_steps: int
    ema: float
    probe_steps: int
    probe_learning_rate: float
    moving: str
    moments: str | None
    decays: tuple[float, float]
    ages: bool


@functools.lru_cache(maxsize=64)  # equal settings, equal object: a key of programs
def make(
    name: str = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    decay: str = r".*kernel",
    warmup_steps: int = 0,
    clip_norm: float = 0.0,
    accumulate_steps: int = 1,
    ema: float = 0.0,
    layer_decay: float = 1.0,
    rgn_steps: int = 0,
    probe_steps: int = 0,
    probe_learning_rate: float = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    momentum: float = 0.9,
    moving: str | None = None,
    moments: str | None = None,
) -> Optimizer:
    """An optimiser: warm-up and cosine, clipping, decay, one rate a block.

    Args:
      name: `adamw`, `adam`, `sgd` or `lion`.
      learning_rate: peak; it grows linearly from 0 in `warmup_steps`, then falls to 0
        as a cosine does.
      weight_decay: decoupled and scaled by the learning rate, as in AdamW; for
        `adam` it is added to the gradient instead.
      decay: regular expression over whole leaf paths: those that decay.
      warmup_steps: updates in which the rate grows linearly from 0, 0 or more.
      clip_norm: bound on the global norm of the selected gradient; 0 for none.
      accumulate_steps: a batch is processed in that many equal pieces, one alive
        at a time; the update is that of the whole batch.
      ema: decay of an average of the selected values that evaluation uses; 0: none.
      layer_decay: the rate of a block is multiplied by this once for every block
        between it and the head, in (0, 1].
      rgn_steps: Auto-RGN (arXiv:2210.11466): every so many steps, an epoch's, the
        rate of each array is set by its gradient's norm relative to its own, see
        `auto_rgn`; 0 for one rate.
      probe_steps: LP-FT (arXiv 2202.10054): so many steps of the head alone come
        first, with moments of their own.
      probe_learning_rate: peak learning rate of those steps.
      b1: decay of the first moments, in [0, 1), of adam, adamw and lion.
      b2: decay of the second moments, likewise.
      epsilon: added to the denominator of the update of adam and adamw.
      momentum: decay of the momentum of sgd, in [0, 1).
      moving: where a method moves its mask, what of the rest: `"mask_update"` (None)
        or `"mask_gradient"`, see `dynamic_mask`.
      moments: there, `"keep"`, `"reset"` or `"seed"`, see `moments`; None for what the
        method says.

    Raises:
      ValueError: a name that is not known, or a number out of its range.
    """
    if name not in CORES:
        raise ValueError(f"no optimizer named {name!r}; {near(name, CORES)}")
    _check("learning_rate", learning_rate, learning_rate > 0, "positive")
    _check("accumulate_steps", accumulate_steps, accumulate_steps >= 1, "1 or more")
    _check("ema", ema, 0 <= ema < 1, "in [0, 1)")
    _check("layer_decay", layer_decay, 0 < layer_decay <= 1, "in (0, 1]")
    least = {"weight_decay": weight_decay, "clip_norm": clip_norm}
    for key, value in {**least, "rgn_steps": rgn_steps}.items():
        _check(key, value, value >= 0, "0 or more")

    def schedule(steps: int, peak: float = learning_rate) -> optax.Schedule:
        warm = min(warmup_steps, max(steps - 1, 0))
        return optax.warmup_cosine_decay_schedule(
            0.0 if warm else peak, peak, warm, max(steps, 1)
        )

    semantics = moving or dynamic_mask.SEMANTICS[0]
    check_choice("optimizer moving", semantics, dynamic_mask.SEMANTICS)
    _check_moments(name, semantics, moments)

    def rule(steps: int, blocks: tuple[str, ...], ages: Any = None) -> Any:
        decays = optax.add_decayed_weights(weight_decay, _matching(decay))
        core = CORES[name](b1, b2, epsilon, momentum)
        if ages is not None and name in AGED:
            core = moments_.aged_adam(b1, b2, epsilon, ages)
        parts = [core]
        if weight_decay:
            parts = [decays, core] if name == "adam" else [core, decays]
        if rgn_steps:
            parts = [auto_rgn.auto_rgn(optax.chain(*parts), rgn_steps)]
        if layer_decay < 1:
            parts += [_scale_by_depth(layer_decay, blocks)]
        return optax.chain(*parts, optax.scale_by_learning_rate(schedule(steps)))

    def transform(steps: int, blocks: tuple[str, ...], ages: Any = None) -> Any:
        one = rule(steps, blocks, ages)
        if not clip_norm:
            return one
        return optax.chain(optax.clip_by_global_norm(clip_norm), one)

    def treatment(path: str, blocks: tuple[str, ...]) -> tuple[bool, float]:
        decays = bool(weight_decay) and bool(re.fullmatch(decay, path))
        return decays, layer_decay ** _depth(path, blocks)

    return Optimizer(
        transform,
        rule,
        treatment,
        clip_norm,
        rgn_steps,
        schedule,
        accumulate_steps,
        ema,
        probe_steps,
        probe_learning_rate,
        semantics,
        moments,
        (b1, b2),
        name in AGED,
    )


def treatments(
    optimizer: Optimizer, paths: Iterable[str], blocks: tuple[str, ...]
) -> list[tuple[bool, float]]:
    """`Optimizer.treatment` of each path."""
    return [optimizer.treatment(path, blocks) for path in paths]


def _check(name: str, value: float, fine: bool, what: str) -> None:
    if not fine:
        raise ValueError(f"optimizer {name}={value}; it must be {what}")


def _check_moments(name: str, semantics: str, moments: str | None) -> None:
    if moments is None:
        return
    check_choice("optimizer moments", moments, moments_.POLICIES)
    if semantics == "mask_gradient":
        what = f"optimizer moments={moments!r} beside moving='mask_gradient'"
        raise ValueError(f"{what}; there moments do as the optimizer does")
    if moments == "seed" and name not in AGED:
        raise ValueError(
            f"optimizer {name} moments='seed'; {' and '.join(AGED)} have it"
        )


def _matching(pattern: str) -> Callable[[Mapping[str, Any]], dict[str, bool]]:
    return lambda flat: {path: bool(re.fullmatch(pattern, path)) for path in flat}


def _scale_by_depth(
    decay: float, blocks: tuple[str, ...]
) -> optax.GradientTransformation:
    """Multiplies the update of block number i of n by decay ** (n - 1 - i)."""

    def update(updates, params=None):
        del params
        return {path: decay ** _depth(path, blocks) * u for path, u in updates.items()}

    return optax.stateless(update)


def _depth(path: str, blocks: tuple[str, ...]) -> int:
    """How many blocks lie between that of `path` and the last one, the head."""
    return len(blocks) - 1 - blocks.index(path.split("/")[0])
