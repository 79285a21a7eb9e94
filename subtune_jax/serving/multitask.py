"""Many tasks, one trunk: N deltas of one base, answered by one compiled program.

    server = multitask.load(backbone, base, {"moths": "runs/moths/delta", ...})
    multitask.everything(server, images)  # {"moths": logits [B, C], ...}
    multitask.mixed(server, images, ["moths", "base", ...])  # one answer an image

Texts go where images are named, as tokens: `backbone.encode([{"text": "..."}, ...])`.

A leaf that some task changes is kept once for each of those tasks, everything else
once. The program runs the base up to the first block that a task changes, its fork,
once for all, and each task's own blocks from there on. Which rows are meant for which
task is data, and so are the tasks: another one of the same shape compiles nothing.

The plain base, named `"base"`, has no head: it answers with what a head would get.
Everything is computed in float32, on one device.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from subtune_jax import delta
from subtune_jax.core.contracts import HEAD, Backbone, Variables
from subtune_jax.serving import layouts, server_program, stacks
from subtune_jax.serving.answers import everything, mixed, refuse_unknown
from subtune_jax.serving.layouts import Layout, Server, Sizes
from subtune_jax.serving.stacks import BASE, Flat

__all__ = ["BASE", "Server", "add", "everything", "join", "load", "mixed", "remove"]


def load(
    backbone: Backbone, base: Variables, folders: Mapping[str, str | Path], **more: Any
) -> Server:
    """A server of the deltas in `folders`: each is loaded, then `join`.

        server = multitask.load(backbone, base, {"moths": "runs/moths/delta"}, spare=8)

    Args:
      backbone: the network.
      base: what the deltas were made of, without a head.
      folders: name of the task -> delta folder.
      **more: keywords of `join`.

    Raises:
      FileNotFoundError: there is no delta in a folder.
      ValueError: a delta is of another base, or damaged; see also `join`.
    """
    tuned = {}
    for name, folder in folders.items():
        try:
            tuned[name] = delta.load(folder, base)
        except ValueError as error:
            raise ValueError(f"task {name!r}: {error}") from error
    return join(backbone, base, tuned, **more)


def join(
    backbone: Backbone,
    base: Variables,
    tasks: Mapping[str, Variables],
    *,
    spare: int = 4,
    classes: int = 0,
    tile: int = 8,
    batch: int = 32,
) -> Server:
    """A server of all `tasks`; its program compiles with the first batch.

        tuned = {name: delta.load(folder, base) for name, folder in folders.items()}
        server = multitask.join(backbone, base, tuned, tile=4, batch=64)

    Args:
      backbone: the network.
      base: what the tasks share, without a head.
      tasks: name -> base + delta, with a head of its own: classes last.
      spare: tasks for which memory is set aside, to be added without compiling.
      classes: what heads are padded to; the widest one's, if that is more.
      tile: rows that are run together for one task. Of a mixed batch, the rows of
        each task are padded to whole tiles.
      batch: rows that are run together, a multiple of `tile`. Longer batches are cut;
        shorter ones are padded to `tile` times a power of two, a program for each, and
        of texts for each of the backbone's lengths.

    Raises:
      ValueError: there is no task, or one is called "base", has no head or does not
        fit the base; or a number is impossible.
    """
    if not tasks:
        raise ValueError("no tasks; there must be one or more")
    if min(spare, classes) < 0 or tile < 1 or batch < 1 or batch % tile:
        sizes = f"spare={spare}, classes={classes}, tile={tile}, batch={batch}"
        raise ValueError(f"{sizes}; batch must be a multiple of tile, none negative")
    plain = {p: x for p, x in delta.flatten(base).items() if stacks.block(p) != HEAD}
    changed = {
        name: stacks.changed(backbone.init, plain, name, tuned)
        for name, tuned in tasks.items()
    }
    sizes = Sizes(spare, classes, tile, batch)
    return _build(backbone, jax.device_put(plain), changed, sizes)


def add(server: Server, name: str, tuned: Variables) -> Server:
    """`server` and one more task.

        server = multitask.add(server, "shells", delta.load("runs/shells/delta", base))

    Nothing is compiled if the task changes only leaves that others changed when the
    server was built, its head is not wider than `layout.sizes.classes`, and there
    is room. It then leaves the trunk at the last fork above what it changes. Otherwise
    all tasks are built anew, with new room, and the next batch compiles.

    Args:
      server: stays as it is, as everywhere here.
      name: of the new task.
      tuned: base + delta, with a head of its own.

    Raises:
      ValueError: there is a task of that name, or `tuned` is refused as by `join`.
    """
    if name in server.tasks:
        raise ValueError(f"there is a task {name!r} already; remove it first")
    layout = server.layout
    leaves = stacks.changed(layout.backbone.init, server.base, name, tuned)
    if not stacks.fit(server.stacks, leaves):  # a head needs a row: no more than slots
        held = {
            each: stacks.held(server.stacks, each, branch.classes)
            for each, branch in server.tasks.items()
        }
        changed = {**held, name: leaves}
        return _build(layout.backbone, server.base, changed, layout.sizes)
    branch = layouts.branch(layout.backbone, layout.forks, leaves)
    return server._replace(
        stacks=stacks.place(server.stacks, server.base, name, leaves),
        tasks={**server.tasks, name: branch},
    )


def remove(server: Server, name: str) -> Server:
    """`server` without the task `name`; its place is free, nothing is compiled.

        server = multitask.remove(server, "moths")

    Raises:
      ValueError: there is no such task.
    """
    refuse_unknown([name], server.tasks)
    rest = {each: branch for each, branch in server.tasks.items() if each != name}
    return server._replace(stacks=stacks.drop(server.stacks, name), tasks=rest)


def _build(
    backbone: Backbone, base: Flat, changed: Mapping[str, Flat], sizes: Sizes
) -> Server:
    """A server of tasks that change these leaves, with a program of its own."""
    forks = layouts.forks(backbone, changed.values())
    branches = {n: layouts.branch(backbone, forks, own) for n, own in changed.items()}
    width = max(sizes.classes, *(branch.classes for branch in branches.values()))
    layout = Layout(
        backbone,
        forks,
        slots=len(branches) + sizes.spare,
        sizes=sizes._replace(classes=width),
        answer=server_program.make(backbone, forks, width),
    )
    variants = stacks.build(base, changed, sizes.spare, width)
    return Server(layout, base, variants, branches)
