"""What a profile costs: ours, with hopeless blocks stopped early, and the naive way.

The naive way trains each block by itself with a masked full backward pass: the
gradient of everything, times the mask, into an optimiser over everything, whose update
is times the mask again; a program of its own for every block. All train the head and
each block alone on the same batches, in processes of their own that share no compiled
programs.

Training amplifies the last bit of every product, so that equal ways reach values that
differ by some images. How much is measured: a fourth turn, `nudged`, is ours from
weights that are each moved to a neighbouring float.
"""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from subtune_jax.core import process, trees
from subtune_jax.data import augment, batches, dataset
from subtune_jax.study import timing
from subtune_jax.subtuning import candidates, evaluator, halving, trials
from subtune_jax.subtuning.candidates import Set
from subtune_jax.subtuning.halving import Reached
from subtune_jax.training.run import linear_probe
from subtune_jax.training.settings import Settings
from subtune_jax.training.setup import Setup, prepare

EXACT, HALVED = 1 / 3, 1 / 10  # of the naive time, at most
FACTOR, LEAST = 4, 10  # of successive halving; steps of its first round, at least
NOISE = 1.5  # mean difference of a value, by that which one bit of the weights makes


def run(setup: Setup, repeats: int = 1) -> dict[str, Any]:
    """Seconds of each way, their ratios, and the values of each.

    Args:
      setup: trains on its training split, values on its validation split.
      repeats: turns of ours; the naive way, which takes minutes, has one.

    Returns:
      `wall_seconds`: way -> of each turn; `ratios` to the naive way, medians.
      `cpu_seconds` of all threads, first turns, and `cpu_ratios`: other work on the
      machine moves these less. `values`: way -> block -> metric; `best`: way -> block;
      `apart`: how far values are from those of the exact way. `programs` that ours
      compiled, `alike` blocks and those that the last of them added; `checks`.
    """
    if setup.augment != augment.NONE:
        raise ValueError("the profile benchmark was given augmentation; it needs none")
    ways: dict[str, list[dict[str, Any]]] = {"naive": [_fresh(setup, "naive")]}
    for way in ("exact", "halved"):
        ways[way] = [_fresh(setup, way) for _ in range(repeats)]
    ways["nudged"] = [_fresh(setup, "nudged")]
    seconds = {way: [turn["seconds"] for turn in turns] for way, turns in ways.items()}
    (naive,) = seconds["naive"]
    median = {way: timing.spread(turns)["median"] for way, turns in seconds.items()}
    ratios = {way: median[way] / naive for way in ("exact", "halved")}
    first = {way: turns[0] for way, turns in ways.items()}
    busy = {way: turn["cpu_seconds"] for way, turn in first.items()}
    values = {way: turn["values"] for way, turn in first.items()}
    best = {way: turn["best"] for way, turn in first.items()}
    apart = {way: _apart(values["exact"], values[way]) for way in ("naive", "nudged")}
    checks = _checks(setup, ratios, values, best, apart)
    programs = first["exact"]["programs"]
    last = "programs that the last alike block adds"
    checks.append(timing.check(last, programs["last"], 0))
    return {
        "wall_seconds": seconds, "cpu_seconds": busy, "ratios": ratios,
        "cpu_ratios": {way: busy[way] / busy["naive"] for way in ratios},
        "values": values, "best": best, "apart": apart,
        "programs": programs, "checks": checks,
    }  # fmt: skip


def _checks(
    setup: Setup,
    ratios: dict[str, float],
    values: dict[str, dict[str, float]],
    best: dict[str, str],
    apart: dict[str, dict[str, float]],
) -> list[dict[str, Any]]:
    # Nudged weights may move no image over a border, and yet others would: half of one.
    least = 0.5 / len(setup.validation.labels)
    return [
        timing.check("exact profile, by the naive way's time", ratios["exact"], EXACT),
        timing.check("the same, halved", ratios["halved"], HALVED),
        timing.check(
            "mean difference of a value, by that of nudged weights",
            apart["naive"]["mean"] / max(apart["nudged"]["mean"], least),
            NOISE,
        ),
        timing.check(
            "halved: loss of the exact profile's best value",
            values["exact"][best["exact"]] - values["exact"][best["halved"]],
            0.0,
        ),
    ]


def _apart(some: dict[str, float], others: dict[str, float]) -> dict[str, float]:
    """Mean and largest absolute difference over the blocks."""
    distances = [abs(some[block] - value) for block, value in others.items()]
    return {"mean": float(np.mean(distances)), "max": max(distances)}


def _fresh(setup: Setup, way: str) -> dict[str, Any]:
    return timing.fresh(__name__, {**setup.settings, "way": way}, timing.NO_CACHE)


def main(settings: Settings) -> None:
    """Prints the values and the seconds of one way as JSON."""
    process.keep_memory()
    way = settings.pop("way")
    setup = prepare(settings)
    begin, busy = time.perf_counter(), time.process_time()
    if way == "nudged":
        setup = nudged(setup)
    result = naive(setup) if way == "naive" else ours(setup, way == "halved")
    result["seconds"] = time.perf_counter() - begin
    result["cpu_seconds"] = time.process_time() - busy
    print(json.dumps(result))


def ours(setup: Setup, halved: bool) -> dict[str, Any]:
    """Our profile, in memory: values of the blocks that were trained to the end."""
    blocks = trials.blocks(setup)
    testbed = trials.prepare(setup, trials.make())
    steps, compiled = setup.settings["train_steps"], []
    programs = testbed.trainer.trunk.store.compiled

    def value(names: Set, until: int) -> float:
        candidate = trials.candidate(testbed, names)
        result = trials.value(testbed, candidate, 0, until)
        compiled.append((names, len(programs)))
        return evaluator.worth([result._asdict()], steps)

    sets = candidates.sets(blocks, candidates.make(full=False))
    if halved:
        reached = halving.best(sets, value, steps, FACTOR, min(LEAST, steps))
    else:
        reached = {names: Reached(steps, value(names, steps)) for names in sets}
    ended = {s: each for s, each in reached.items() if s and each.steps == steps}
    values = {one[0]: each.value for one, each in ended.items()}
    best = halving.leader({s: each for s, each in reached.items() if s})[0]
    return {"values": values, "best": best, "programs": _added(setup, compiled)}


def nudged(setup: Setup) -> Setup:
    """The setup with each weight moved to a neighbouring float, up or down."""
    rng = np.random.default_rng(setup.settings["seed"])

    def moved(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        where = rng.choice(np.array([-np.inf, np.inf], leaf.dtype), leaf.shape)
        return np.nextafter(leaf, where)

    params = jax.tree.map(moved, setup.variables.params)
    return setup._replace(variables=setup.variables._replace(params=params))


def _added(setup: Setup, compiled: list[tuple[Set, int]]) -> dict[str, int]:
    """Programs in all, blocks alike the most common one, and what its last added."""
    alike = [setup.backbone.alike.get(s[0], s[0]) for s, _ in compiled if s]
    common = max(set(alike), key=alike.count)
    before, added = 0, {}
    for one, count in compiled:
        if one and setup.backbone.alike.get(one[0], one[0]) == common:
            added.setdefault(one[0], count - before)
        before = count
    last = [*added.values()][-1]
    return {"all": compiled[-1][1], "alike": len(added), "last": last}


def naive(setup: Setup) -> dict[str, Any]:
    """The naive profile; the head and each block."""
    blocks = trials.blocks(setup)
    flat = trees.flatten(setup.variables.params)
    if setup.optimizer.probe_steps:
        state = linear_probe(setup).state
        flat |= {path: np.asarray(leaf) for path, leaf in state.values.items()}
    values = {block: _naive_value(setup, flat, block) for block in ("", *blocks)}
    del values[""]
    return {"values": values, "best": max(values, key=lambda b: values[b])}


def _naive_value(setup: Setup, flat: dict[str, Any], block: str) -> float:
    steps, stats = setup.settings["train_steps"], setup.variables.stats
    tx = setup.optimizer.transform(steps, setup.backbone.blocks)
    mask = {p: float(p.split("/")[0] in (block, "head")) for p in flat}
    eye = np.eye(len(setup.task.classes), dtype=np.float32)

    def logits(flat: Any, images: jax.Array) -> jax.Array:
        x = dataset.normalize(setup.backbone, images)
        return setup.backbone.apply(trees.nest(flat), stats, x)[0]

    def step(flat: Any, state: Any, images: Any, targets: Any) -> tuple[Any, Any]:
        def loss(flat: Any) -> jax.Array:
            return setup.task.loss(logits(flat, images), targets).mean()

        grads = jax.tree.map(jnp.multiply, jax.grad(loss)(flat), mask)
        updates, state = tx.update(grads, state, flat)
        updates = jax.tree.map(jnp.multiply, updates, mask)
        return optax.apply_updates(flat, updates), state

    train = jax.jit(step, donate_argnums=(0, 1))
    flat = {path: jnp.array(leaf) for path, leaf in flat.items()}
    state, size = tx.init(flat), setup.settings["batch_size"]
    for number in range(steps):
        begin = number * size
        seed, count = setup.settings["seed"], len(setup.train.labels)
        where = batches.shuffled(seed, count, begin, begin + size)
        targets = eye[setup.train.labels[where]]
        flat, state = train(flat, state, setup.train.read(where), targets)
    predict, outputs = jax.jit(logits), []
    for first in range(0, len(setup.validation.labels), size):
        where = np.arange(first, first + size) % len(setup.validation.labels)
        outputs.append(np.asarray(predict(flat, setup.validation.read(where))))
    whole = np.concatenate(outputs)[: len(setup.validation.labels)]
    return float(setup.task.metric(whole, setup.validation.labels))


if __name__ == "__main__":
    main(json.load(sys.stdin))
