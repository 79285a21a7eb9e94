"""What dynamic masks cost: DPS compared with a constant mask, bytes of four methods.

The constant mask marks as many random elements of the same leaves as DPS's second
stage, `masked` around the config's optimiser; both are differentiated whole, by the
same step. DPS has its paper's numbers, arXiv:2211.01642, on the config's network and
first batch: a kind of step is taken again and again by setting the state's count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, method, trees
from subtune_jax.core.method import Selector
from subtune_jax.data import augment
from subtune_jax.methods import dps_dense, gmt, spiel
from subtune_jax.optim import dynamic_mask, mask_rule, masked_updates
from subtune_jax.optim.partition import Partition
from subtune_jax.study import step_runs, timing
from subtune_jax.training import evidence, program
from subtune_jax.training.program import Program
from subtune_jax.training.setup import Setup
from subtune_jax.training.step import State

RUN_STEPS = 94  # of a run: stages of 4 steps
DROP_RATIO, UPDATE_RATIO = 0.3, 0.05  # of the paper
TIME, CHOOSING = 1.05, 0.05
SHARE = "choosing by the run"


def run(setup: Setup, repeats: int) -> dict[str, Any]:
    """Figures of a run of `RUN_STEPS` steps, nothing augmented.

    Returns:
      `milliseconds`: of a step of `plain`, the constant mask, and of DPS's `stage_1`,
      `stage_2` and `choosing`, which opens the second stage; `steps`: how many of each
      kind such a run has; `ratios`: `stage_1` and `stage_2` by `plain`, and `choosing`,
      what these steps take beyond those of their stage, by the time of the whole run,
      all in the same turns; `bytes`: see `held`, of each method; `checks`.
    """
    settings = {**setup.settings, "trunk_cache": False, "train_steps": RUN_STEPS}
    setup = setup._replace(settings=settings, augment=augment.NONE)
    selector = dps_dense.make(DROP_RATIO, UPDATE_RATIO)
    plan = plan_of(setup, selector)
    kinds = _kinds(int(plan.memory["stage_steps"]))
    states: dict[str, State] = {}
    dense = program.build(setup, plan, setup.optimizer, RUN_STEPS, selector=selector)
    steps = {"plain": _stepping(_plain(setup, plan), states, "plain", 0)}
    # One state, in this order: what is chosen is what the second stage is masked by.
    for kind, numbers in kinds.items():
        steps[kind] = _stepping(dense, states, "dps", numbers[-1])
    seconds = timing.by_turns(steps, repeats)
    counts = {kind: len(numbers) for kind, numbers in kinds.items()}
    ratios = {
        f"{kind} by plain": timing.ratio(seconds[kind], seconds["plain"])
        for kind in ("stage_1", "stage_2")
    }
    limits = dict.fromkeys(ratios, TIME) | {SHARE: CHOOSING}
    ratios[SHARE] = timing.spread(_choosing(seconds, counts))
    return {
        "milliseconds": {
            name: {k: 1e3 * v for k, v in timing.spread(turns).items()}
            for name, turns in seconds.items()
        },
        "steps": counts,
        "ratios": ratios,
        "bytes": {name: held(setup, each) for name, each in _methods().items()},
        "checks": [
            timing.check(f"DPS: {what}", ratios[what]["median"], limit)
            for what, limit in limits.items()
        ],
    }


def plan_of(setup: Setup, selector: Selector) -> Partition:
    """The partition of a method, whether its mask is dynamic or not."""
    selection = selector.init(evidence.make(setup))
    moves = selector.update is not method.hold
    return step_runs.plan_of(setup, selection, moves=moves)


def held(setup: Setup, selector: Selector) -> dict[str, Any]:
    """Bytes on one device, those of the parameters left out.

    Returns:
      `values` that are trained: whole leaves, or as many of them as are selected;
      `optimizer_bytes`, ages included; `memory_bytes`, the method's accumulators;
      `mask_bytes`: what is selected, what ever was, and what stood there before; and
      `ratios` of these to 8 bytes a value, which two moments take.

    Raises:
      ValueError: the method moves nothing.
    """
    plan, optimizer = plan_of(setup, selector), setup.optimizer
    rule = mask_rule.make(selector, optimizer, plan)
    if rule is None:
        raise ValueError("a static method; only dynamic masks have such bytes")
    flat = trees.flatten(setup.variables.params)
    leaves = {path: flat[path] for path in plan.places}
    begin = dynamic_mask.begin(rule, plan.values, leaves, plan.moving, plan.memory)
    ages = dynamic_mask.ages(rule, begin)
    transform = optimizer.transform(RUN_STEPS, setup.backbone.blocks, ages)
    count = sum(np.size(value) for value in plan.values.values())
    sizes = {
        "optimizer_bytes": _bytes(jax.eval_shape(transform.init, plan.values)),
        "memory_bytes": _bytes(begin.memory),
        "mask_bytes": _bytes((begin.mask, begin.ever, begin.base)),
    }
    ratios = {what: size / (8 * count) for what, size in sizes.items()}
    return {"values": count, **sizes, "ratios": ratios}


def _methods() -> dict[str, Selector]:
    return {
        "dps_dense": dps_dense.make(DROP_RATIO, UPDATE_RATIO),
        "gmt": gmt.make(),
        "gmt_compact": gmt.make(compact=True),
        "spiel": spiel.make(),
    }


def _kinds(stage: int) -> dict[str, list[int]]:
    """Kind -> numbers of the steps of a run that are of it, in the order of a cycle.

    Args:
      stage: steps of a stage, 2 or more.
    """
    kinds: dict[str, list[int]] = {"stage_1": [], "choosing": [], "stage_2": []}
    for step in range(RUN_STEPS):
        second = (step // stage) % 2 == 1
        chooses = second and step % stage == 0
        kinds["choosing" if chooses else "stage_2" if second else "stage_1"] += [step]
    return kinds


def _plain(setup: Setup, plan: Partition) -> Program:
    """A run of the same plan whose mask is a constant around the optimiser."""
    rng = np.random.default_rng(0)

    def marks(path: str, value: np.ndarray) -> np.ndarray:
        if path not in plan.moving:
            return np.ones((), bool)
        count = math.ceil(value.size * (1 - DROP_RATIO))
        flat = np.arange(value.size) < count
        return rng.permutation(flat).reshape(value.shape)

    mask = {path: marks(path, value) for path, value in plan.values.items()}
    inner = setup.optimizer.transform

    def transform(steps: int, blocks: tuple[str, ...], ages: Any = None) -> Any:
        return masked_updates.masked(inner(steps, blocks, ages), mask)

    masked = setup.optimizer._replace(transform=transform)
    return program.build(setup, plan, masked, RUN_STEPS)


def _stepping(
    form: Program, states: dict[str, State], name: str, number: int
) -> Callable[[], None]:
    """A call takes step `number` from `states[name]`, always on the first batch."""
    states.setdefault(name, form.state)
    piece = devices.spread(form.devices, next(form.feed.pieces(0, 1)))

    def step() -> None:
        # Its buffer is given away with the others, so that each call needs a new one.
        count = devices.replicate(form.devices, np.int32(number))
        before = states[name]._replace(step=count)
        after = form.first_step(before, form.fixed, piece)
        states[name], _ = jax.block_until_ready(after)

    return step


def _choosing(
    seconds: Mapping[str, Sequence[float]], counts: Mapping[str, int]
) -> list[float]:
    """Of each turn, the share of a run's time that choosing anew takes."""
    shares = []
    for turn in range(len(seconds["choosing"])):
        taken = {kind: seconds[kind][turn] for kind in counts}
        whole = sum(counts[kind] * each for kind, each in taken.items())
        more = taken["choosing"] - taken["stage_2"]
        shares.append(counts["choosing"] * more / whole)
    return shares


def _bytes(tree: Any) -> int:
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
