"""What a server answers: all images to all tasks, or each image to its own task."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from subtune_jax.core.registry import near
from subtune_jax.serving import server_program
from subtune_jax.serving.layouts import Server
from subtune_jax.serving.stacks import BASE


def everything(
    server: Server, images: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """What each task answers to all images: name -> float32 logits `[B, C]`.

        logits = multitask.everything(server, images)["moths"]
        classes = logits.argmax(-1)  # [B]

    Args:
      server: the tasks.
      images: uint8 `[B, H, W, 3]`, any B, of the backbone's `input_shape`; of texts
        what its `encode` returns, int32 `[B, L, 2]`, any L that holds them.
      names: the tasks to ask, all by default; `"base"` for the features `[B, D]` that
        a head would get.

    Raises:
      ValueError: an unknown name, or images of another kind.
    """
    wanted = list(server.tasks if names is None else names)
    refuse_unknown(wanted, [*server.tasks, BASE])
    _refuse_images(server, images)
    return _answers(server, images, dict.fromkeys(wanted, np.arange(len(images))))


def mixed(server: Server, images: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """What each image's own task answers: float32 logits `[C]`, one array an image.

        logits = multitask.mixed(server, images, ["moths", "shells", "moths"])
        logits[1].shape  # [C] of "shells"

    Args:
      server: the tasks.
      images: uint8 `[B, H, W, 3]`, any B, of the backbone's `input_shape`; of texts
        what its `encode` returns, int32 `[B, L, 2]`, any L that holds them.
      names: the task of each image; `"base"` for the features `[D]`.

    Raises:
      ValueError: an unknown name, images of another kind, or not one name for each.
    """
    refuse_unknown(names, [*server.tasks, BASE])
    _refuse_images(server, images)
    if len(names) != len(images):
        raise ValueError(f"{len(names)} names; there are {len(images)} images")
    rows = {name: np.flatnonzero(np.equal(names, name)) for name in set(names)}
    answers = {n: iter(each) for n, each in _answers(server, images, rows).items()}
    return [next(answers[name]) for name in names]


def refuse_unknown(names: Sequence[str], known: Collection[str]) -> None:
    """Refuses, by ValueError, a name that is not `known`."""
    for name in names:
        if name not in known:
            raise ValueError(f"no task named {name!r}; {near(name, known)}")


def _answers(
    server: Server, images: np.ndarray, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Name -> answers for its rows, in their order, which rises."""
    batch = server.layout.sizes.batch
    parts = []
    for first in range(0, max(len(images), 1), batch):  # no images: answers of no rows
        inside = {n: r[(r >= first) & (r < first + batch)] for n, r in rows.items()}
        own = {name: each - first for name, each in inside.items()}
        parts.append(_batch(server, images[first : first + batch], own))
    return {name: np.concatenate([part[name] for part in parts]) for name in rows}


def _batch(
    server: Server, images: np.ndarray, rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    sizes = server.layout.sizes
    size = sizes.tile
    while size < len(images):
        size = min(2 * size, sizes.batch)
    padded = _padded(server, images, size)
    tiles, places = server_program.assign(server, rows, size)
    arguments = server.base, server.stacks.leaves, padded, tiles
    logits, features = map(np.asarray, server.layout.answer(*arguments))
    answers = {BASE: features[rows[BASE]]} if BASE in rows else {}
    for name, where in places.items():
        flat = logits[where].reshape(-1, sizes.classes)
        answers[name] = flat[: len(rows[name]), : server.tasks[name].classes]
    return answers


def _padded(server: Server, images: np.ndarray, size: int) -> np.ndarray:
    """`size` rows; texts as long as the least of the network's lengths that holds them.

    So each of these lengths has a program of its own, and no other length has.
    """
    shape = images.shape[1:]
    if lengths := server.layout.backbone.lengths:
        longest = _longest(images)
        shape = (next(each for each in lengths if each >= longest), 2)
        images = images[:, : shape[0]]
    padded = np.zeros((size, *shape), images.dtype)
    padded[tuple(slice(count) for count in images.shape)] = images
    return padded


def _longest(tokens: np.ndarray) -> int:
    """Tokens of the longest text."""
    return int(np.count_nonzero(tokens[..., 1], axis=1).max(initial=0))


def _refuse_images(server: Server, images: np.ndarray) -> None:
    backbone = server.layout.backbone
    shape: tuple[str | int, ...] = backbone.input_shape
    what, kind, fits = "images", np.uint8, images.shape[1:] == shape
    if backbone.encode is not None:
        what, kind, shape = "texts", np.int32, ("L", 2)
        fits = images.ndim == 3 and images.shape[2] == 2
    if images.dtype != kind or not fits:
        what += f" are {images.dtype} {list(images.shape)}"
        kinds = f"{np.dtype(kind)} [B, {', '.join(map(str, shape))}]"
        raise ValueError(f"{what}; there are {kinds}")
    most = backbone.lengths[-1] if backbone.lengths else None
    if most is not None and _longest(images) > most:
        what = f"a text of {_longest(images)} tokens"
        raise ValueError(f"{what}; backbone {backbone.name} takes {most}")
