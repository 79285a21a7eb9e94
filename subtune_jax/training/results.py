"""The outcome of a run: the tuned tree, its certificate, and what is written."""

from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, trees
from subtune_jax.core.contracts import Variables
from subtune_jax.data import dense
from subtune_jax.optim import additive
from subtune_jax.selection import masks
from subtune_jax.training.assembly import Run
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State


def tuned(made: Setup, run: Run, state: State) -> Variables:
    """All variables after training: the base with the trained float32 values in it.

    With averaging, the averaged values: what was evaluated is what is shipped. Added
    arrays are merged here, in float32: what is shipped has the base's leaves and no
    others, and those merged into are in the delta in full. A file of the added arrays
    alone would be smaller, and no tree to load.
    """
    values = devices.to_host(state.values if state.ema is None else state.ema)
    places = _places(state)
    used = devices.to_host({path: state.partial[path] for path in places})
    flat = {path: np.array(x) for path, x in _flat(made.variables.params).items()}
    leaves, added = additive.split(run.plan.additive, values)
    for path, leaf in used.items():  # what was selected once may have moved
        ever = np.asarray(_ever(state)[path])
        flat[path] = np.where(ever, np.asarray(leaf, np.float32), flat[path])
    for path, value in leaves.items():
        where = (run.plan.positions | places).get(path)
        if where is None:
            flat[path] = value
        else:
            flat[path].reshape(-1)[np.asarray(where)] = value
    flat |= additive.merge(run.plan.additive, flat, added)
    return Variables(trees.nest(flat), devices.to_host(state.stats))


def frozen_unchanged(made: Setup, run: Run, state: State, after: Variables) -> bool:
    """Whether every unselected element and frozen statistic has the base's bits.

    Compared are the arrays on the devices at the end of training, in the type of the
    computation, and the tree that is shipped. Leaves that arrays are merged into differ
    in the latter only: on the devices they too must be the base's.
    """
    base, mask = _flat(made.variables.params), _flat(run.plan.mask) | _ever(state)
    added = run.plan.additive
    merged = () if added is None else added.paths
    movable = mask | dict.fromkeys(merged, np.True_)
    used = devices.to_host({**run.trainer.fixed.frozen, **state.partial})
    as_computed = {p: np.asarray(jnp.asarray(base[p], run.recipe.dtype)) for p in used}
    shipped = _flat(after.params)
    stats, new_stats = _flat(made.variables.stats), _flat(after.stats)
    still = [p for p in stats if p.split("/")[0] not in run.plan.training]
    return (
        all(_same(as_computed[p], used[p], mask[p]) for p in used)
        and all(_same(base[p], shipped[p], movable[p]) for p in base)
        and all(_same(stats[p], new_stats[p], np.False_) for p in still)
    )


def moved(state: State) -> dict[str, int]:
    """`{"ever"}`, elements that a moving mask has selected at one time or another."""
    found = _ever(state).items()
    sizes = [f.sum() if f.ndim else f * state.values[p].size for p, f in found]
    return {"ever": int(sum(sizes))} if sizes else {}


def _ever(state: State) -> dict[str, Any]:
    return {} if state.moving is None else devices.to_host(state.moving.ever)


def _places(state: State) -> dict[str, np.ndarray]:
    """The positions that moved, as they are now."""
    moving = state.moving
    if moving is None:
        return {}
    return devices.to_host({path: moving.mask[path] for path in moving.base})


def shares(made: Setup, run: Run) -> dict[str, tuple[int, int]]:
    """Block -> (elements that are trained, all elements of the network)."""
    params, mask = made.variables.params, run.plan.mask
    return {
        block: (
            masks.count(params.get(block, {}), mask.get(block, {}))
            + additive.count(run.plan.additive, block),
            sum(np.size(leaf) for leaf in _flat(params.get(block, {})).values()),
        )
        for block in made.backbone.blocks
    }


def also(made: Setup, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Name -> value of the task's further metrics."""
    found = made.task.also.items()
    return {name: float(metric(logits, labels)) for name, metric in found}


def constant(made: Setup, count: int) -> np.ndarray:
    """Logits `[count, C]` of one guess for all: what training holds most of.

    Of a regression the mean of the training labels. What a run must beat: one that does
    not has failed.
    """
    labels, classes = made.train.labels, len(made.task.classes)
    if made.task.regression:
        return np.full((count, 1), labels.mean(), np.float32)
    common = np.bincount(labels, minlength=classes).argmax()
    return np.tile(np.eye(classes, dtype=np.float32)[common], (count, 1))


def confusion(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[C, C]`, of pixels where there are masks: rows are true classes.

    Of a regression, which has none, truth and prediction of each example, floats
    `[N, 2]`.
    """
    if labels.ndim > 1:
        return dense.total(logits, labels)
    if np.issubdtype(labels.dtype, np.floating):
        return np.stack([labels, logits[:, 0]], axis=1).astype(float)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(-1)), 1)
    return counts


def mistakes(
    made: Setup, logits: np.ndarray, labels: np.ndarray, images: Any, count: int = 12
) -> list[dict[str, Any]]:
    """The `count` most confident mistakes: example, truth, guess, probability.

    Of a regression the largest errors, without a probability.

    Args:
      made: the setup.
      logits: `[N, C]` of the test split.
      labels: `[N]` likewise.
      images: the test split as the network takes it. Of texts the task's own test
        split is read: who looks at a mistake reads no tokens.
      count: of mistakes.
    """
    if made.task.regression:
        return _errors(made, logits[:, 0], labels, images, count)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    guess = logits.argmax(-1)
    wrong = np.flatnonzero(guess != labels)
    worst = wrong[np.argsort(-odds[wrong, guess[wrong]], kind="stable")][:count]
    names = made.task.classes
    return [
        {
            **_shown(made, images, i),
            "truth": names[labels[i]],
            "guess": names[guess[i]],
            "probability": float(odds[i, guess[i]]),
        }
        for i in worst
    ]


def _errors(
    made: Setup, found: np.ndarray, labels: np.ndarray, images: Any, count: int
) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(found - labels), kind="stable")[:count]
    return [
        {
            **_shown(made, images, i),
            "truth": f"{labels[i]:.3g}",
            "guess": f"{found[i]:.3g}",
            "probability": None,
        }
        for i in order
    ]


def _shown(made: Setup, images: Any, index: int) -> dict[str, Any]:
    """What a reader is shown of a test example: its image, or its texts."""
    if made.backbone.encode is None:
        return {"image": images.read(np.asarray([index]))[0]}
    return made.task.test.read(int(index))


def worst(
    made: Setup, logits: np.ndarray, truth: np.ndarray, images: Any, count: int = 6
) -> list[dict[str, Any]]:
    """The `count` images of the lowest metric: image, truth, guess, metric."""
    pairs = zip(logits, truth, strict=True)
    each = [made.task.metric(x[None], y[None]) for x, y in pairs]
    return [
        {
            "image": images.read(np.asarray([i]))[0],
            "truth": truth[i],
            "guess": dense.guess(logits[i], truth[i].shape),
            "metric": float(each[i]),
        }
        for i in np.argsort(each, kind="stable")[:count]
    ]


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    libraries = ("subtune-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    return {name: metadata.version(name) for name in libraries}


def state_bytes(state: State) -> int:
    """Bytes of the optimiser's state on one device."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in trees.flatten(tree).items()}


def _same(before: np.ndarray, after: np.ndarray, movable: Any) -> bool:
    """Are the bits equal wherever `movable` is false?"""
    kind = f"u{before.dtype.itemsize}"
    differs = np.array(before).view(kind) != np.array(after).view(kind)
    return not np.any(differs & ~np.broadcast_to(movable, before.shape))
