"""Noise that any network takes: pixels, or the tokens of random words."""

import csv
import functools
import importlib
import tempfile
from pathlib import Path

import numpy as np

FOLDER = tempfile.TemporaryDirectory(prefix="noise-")  # gone when Python ends


def network(name):
    """The tiny one of `backbones/`."""
    module = importlib.import_module(f"subtune_jax.backbones.{name}")
    return module.make(**module.TINY)


def raw(backbone, count, seed=0):
    """As a data set gives it: uint8 `[N, H, W, 3]`, or int32 tokens `[N, L, 2]`."""
    rng = np.random.default_rng(seed)
    if backbone.encode is None:
        shape = (count, *backbone.input_shape)
        return rng.integers(0, 256, shape, dtype=np.uint8)
    length = backbone.input_shape[0]
    encoded = backbone.encode([example(rng, length, i) for i in range(count)])
    found = np.zeros((count, length, 2), np.int32)
    found[:, : encoded.shape[1]] = encoded
    real = np.count_nonzero(found[..., 1], axis=1)
    assert real.max() == length and (count == 1 or real.min() < length)
    return found


def entering(backbone, count, seed=0):
    """As the first block takes it: normal float32 `[N, H, W, 3]`, or tokens."""
    if backbone.encode is not None:
        return raw(backbone, count, seed)
    shape = (count, *backbone.input_shape)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def example(rng, length, number):
    """Random words: of number 0 too many, of number 1 few, of any fourth a pair."""
    most = max(2, (length - 3) // 2)
    count = {0: 2 * length, 1: 1}.get(number, rng.integers(1, most + 1))
    draw = lambda: " ".join(f"w{n}" for n in rng.integers(0, 99, count))  # noqa: E731
    return {"text": draw()} | ({"pair": draw()} if number % 4 == 3 else {})


def task(name, examples, size, regression=False):
    """What a config says of a task for the network `name`: drawn scenes, or words."""
    if network(name).encode is None:
        return {"name": "structured", "examples": examples, "image_size": size}
    path = str(words(examples, regression))
    return {"name": "text_file", "path": path, "regression": regression}


@functools.cache
def words(count, regression=False, length=8):
    """A CSV of random words; the label is a, b or c, or a number.

    The label is that of the first word, so that there is something to learn.
    """
    rng = np.random.default_rng(count)
    file = Path(FOLDER.name) / f"{count}-{regression}-{length}.csv"
    rows = []
    for number in range(count):
        kind = int(rng.integers(3))
        text = f"first{kind} {example(rng, length, number % 12)['text']} {number}"
        rows.append((text, float(kind) + number / count if regression else "abc"[kind]))
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return file
