"""What choosing costs: GPS's scores by an epoch of gradients, choices by a reading.

Choices are timed on 85.9 million scores in the arrays of a ViT-B/16, whatever the
config's network; a pass is reading them once, for the largest.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from subtune_jax.backbones import vit
from subtune_jax.core import losses, trees
from subtune_jax.core.method import Evidence
from subtune_jax.methods import gps
from subtune_jax.selection import choose
from subtune_jax.study import timing
from subtune_jax.training import evidence
from subtune_jax.training.setup import Setup

PASSES, EPOCHS = 3.0, 1.2
SHORT, LONG = 2, 10  # batches; the difference of the two has no compilation in it
TURNS = 2  # at most, of those: each selection compiles anew


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Figures of choosing.

    Returns:
      `epochs`: seconds of GPS's selection by those of the gradients it takes, for as
      many batches, without compilation and without drawing the views; `passes`: choice
      -> its seconds by those of a pass; `scores`: how many there are; `checks`.
    """
    epochs = _epochs(evidence.make(setup), repeats)
    drawn = _drawn()
    seconds = timing.by_turns(
        {
            "pass": lambda: [float(score.max()) for score in drawn.values()],
            "top_per_neuron, k=1": lambda: choose.top_per_neuron(drawn, 1),
            "top_overall, 0.1 %": lambda: choose.top_overall(drawn, 86_000),
            "top_overall, 1 %": lambda: choose.top_overall(drawn, 860_000),
        },
        repeats,
    )
    reading = seconds.pop("pass")
    passes = {name: timing.ratio(turns, reading) for name, turns in seconds.items()}
    checks = [timing.check("GPS by its gradients", epochs["median"], EPOCHS)]
    checks += [
        timing.check(f"{name}: passes", ratio["median"], PASSES)
        for name, ratio in passes.items()
    ]
    return {
        "epochs": epochs,
        "passes": passes,
        "scores": sum(score.size for score in drawn.values()),
        "checks": checks,
    }


def _epochs(gathered: Evidence, repeats: int) -> dict[str, float]:
    features, views = gathered.features, gathered.views
    if features is None or views is None:  # `evidence.make` gives both
        raise ValueError("evidence without features; they are needed")
    batches = list(views(LONG))
    held = gathered._replace(views=lambda count: batches[:count])

    @jax.jit
    def slope(params: Any, batch: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            return losses.contrastive(features(params, batch), batch["labels"])

        return jax.grad(loss)(params)

    def gradients(count: int) -> None:
        for batch in batches[:count]:
            jax.block_until_ready(slope(gathered.params, batch))

    def choices(count: int) -> None:
        gps.make(batches=count).init(held)

    steps: dict[str, Callable[[], object]] = {
        f"{work.__name__} {count}": functools.partial(work, count)
        for work in (gradients, choices)
        for count in (SHORT, LONG)
    }
    seconds = timing.by_turns(steps, min(repeats, TURNS))

    def more(name: str) -> list[float]:
        pairs = zip(seconds[f"{name} {LONG}"], seconds[f"{name} {SHORT}"], strict=True)
        return [long - short for long, short in pairs]

    return timing.ratio(more("choices"), more("gradients"))


def _drawn() -> dict[str, np.ndarray]:
    """Absolute normal numbers in the shapes of a ViT-B/16 without its head."""
    backbone = vit.make(variant="B/16")
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), 1))
    rng = np.random.default_rng(0)
    return {
        path: np.abs(rng.standard_normal(leaf.shape, np.float32))
        for path, leaf in trees.flatten(shapes.params).items()
        if not path.startswith("head/")
    }
