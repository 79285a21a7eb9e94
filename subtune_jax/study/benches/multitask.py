"""Eight tasks behind one trunk, compared with eight separate models and the bound.

    python -m subtune_jax.study.benches.multitask

Weights are random. By turns in one process, from images to logits on the host:
`server`, a batch to all tasks by `multitask.everything`; `separate`, the same by eight
whole models, one after the other: one compiled program, eight sets of arguments;
`bound`, the trunk once and eight times the rest, programs of the same block code, one
after the other; `mixed`, a batch of which every task has an equal share, by
`multitask.mixed`; and `separate_mixed`, the whole models, each on its share.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from subtune_jax.backbones import efficientnet_lite0, vit
from subtune_jax.core import flops, process, trees
from subtune_jax.core.contracts import Backbone, Variables
from subtune_jax.serving import multitask, served_flops, server_program
from subtune_jax.serving.multitask import Server
from subtune_jax.study import timing

TASKS, BATCH, CLASSES = 8, 32, 10
NETWORKS: dict[str, tuple[Callable[[], Backbone], tuple[str, ...]]] = {
    "efficientnet_lite0": (
        lambda: efficientnet_lite0.make(weights=None, image_size=128),
        ("block15", "block16"),
    ),
    "vit_s14": (lambda: vit.make("S/14", image_size=112), ("block11", "block12")),
}


def run(repeats: int = 5) -> dict[str, Any]:
    """`compare` of every network, `networks`, and `checks`."""
    process.keep_memory()
    networks, checks = {}, []
    for name, (make, blocks) in NETWORKS.items():
        figures = networks[name] = compare(make(), blocks, repeats)
        ratios = {what: row["median"] for what, row in figures["ratios"].items()}
        rows = (
            ("time, in bounds", ratios["server_to_bound"], 1.15),
            ("time, in separate models'", 1 / ratios["separate_to_server"], 1 / 3),
            ("operations, in bounds", figures["operations"]["server_to_bound"], 1.15),
            ("relative difference of logits", figures["difference"], 1e-5),
            ("programs compiled to add a task", figures["compiled"], 0),
        )
        checks += [timing.check(f"{name}: {what}", *pair) for what, *pair in rows]
    return {"networks": networks, "checks": checks}


def compare(
    backbone: Backbone, blocks: tuple[str, ...], repeats: int, batch: int = BATCH
) -> dict[str, Any]:
    """A server and separate models, of tasks that differ in `blocks` and the head.

    Returns:
      `milliseconds` a batch of each form, and `ratios` of the same turns;
      `operations`, floating-point ones of a batch, and their ratios; `bytes` of
      weights; the largest `difference` of a logit, in shares of the largest logit; the
      number of programs `compiled` while a task was added and asked.
    """
    base = backbone.load()
    moved = (tune(backbone, base, blocks, seed) for seed in range(TASKS + 1))
    *tasks, new = jax.device_put(list(moved))
    named = {f"task{number}": task for number, task in enumerate(tasks)}
    server = multitask.join(backbone, base, named, spare=1, batch=batch)
    shape = (batch, *backbone.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    forms = _forms(server, tasks, images, blocks[0])
    seconds = timing.by_turns(forms, repeats)
    ours, theirs = (np.stack(forms[form]()) for form in ("server", "separate"))
    pairs = (("server", "bound"), ("separate", "server"), ("separate_mixed", "mixed"))
    return {
        "milliseconds": {
            form: timing.spread([1e3 * taken for taken in turns])
            for form, turns in seconds.items()
        },
        "ratios": {
            f"{a}_to_{b}": timing.ratio(seconds[a], seconds[b]) for a, b in pairs
        },
        "operations": _operations(server, tasks, images, blocks[0]),
        "bytes": {
            "server": _bytes((server.base, server.stacks.leaves)),
            "separate": _bytes(tasks),
        },
        "difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "compiled": _compiled_to_add(server, new, images),
    }


def tune(
    backbone: Backbone, base: Variables, blocks: tuple[str, ...], seed: int
) -> Variables:
    """The base with `blocks` moved at random, statistics too, and a random head."""
    rng = np.random.default_rng(seed)

    def move(path: str, leaf: Any) -> Any:
        moves = path.split("/")[1] in blocks
        return leaf * rng.uniform(0.9, 1.1, leaf.shape).astype("f4") if moves else leaf

    head = backbone.init(jax.random.key(seed), CLASSES).params["head"]
    moved = trees.map_leaves(move, base._asdict())
    return Variables({**moved["params"], "head": head}, moved["stats"])


def _operations(
    server: Server, tasks: list[Variables], images: np.ndarray, fork: str
) -> dict[str, float]:
    backbone = server.layout.backbone
    trunk = server_program.segment(backbone, None, fork)
    rest = server_program.segment(backbone, fork, None)
    whole = server_program.segment(backbone, None, None)
    x = jax.eval_shape(trunk, tasks[0], images)
    bound = flops.needed(trunk, tasks[0], images).forward
    bound += len(tasks) * flops.needed(rest, tasks[0], x).forward
    rows = np.arange(len(images))
    ours = served_flops.count(server, dict.fromkeys(server.tasks, rows), len(images))
    separate = len(tasks) * flops.needed(whole, tasks[0], images).forward
    return {
        "server": ours,
        "bound": bound,
        "separate": separate,
        "server_to_bound": ours / bound,
        "separate_to_server": separate / ours,
    }


def _forms(
    server: Server, tasks: list[Variables], images: np.ndarray, fork: str
) -> dict[str, Callable[[], list[np.ndarray]]]:
    backbone, names = server.layout.backbone, list(server.tasks)
    order = [names[row % len(names)] for row in range(len(images))]
    shares = [images[number :: len(names)] for number in range(len(names))]
    whole = jax.jit(server_program.segment(backbone, None, None))
    trunk = jax.jit(server_program.segment(backbone, None, fork))
    rest = jax.jit(server_program.segment(backbone, fork, None))

    def bound() -> list[np.ndarray]:
        x = trunk(tasks[0], images)
        return [np.asarray(rest(task, x)) for task in tasks]

    return {
        "server": lambda: list(multitask.everything(server, images).values()),
        "separate": lambda: [np.asarray(whole(task, images)) for task in tasks],
        "bound": bound,
        "mixed": lambda: multitask.mixed(server, images, order),
        "separate_mixed": lambda: [
            np.asarray(whole(*pair)) for pair in zip(tasks, shares, strict=True)
        ],
    }


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _compiled_to_add(server: Server, new: Variables, images: np.ndarray) -> int:
    """Programs that were compiled while `new` was added, and answered with all."""
    events: list[str] = []

    def listen(event: str, duration_secs: float, **rest: str | int) -> None:
        del duration_secs, rest
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        multitask.everything(multitask.add(server, "new", new), images)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return events.count(timing.COMPILING)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
