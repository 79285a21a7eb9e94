"""Evidence: what a method may look at, made of a setup; training examples only."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core.contracts import HEAD
from subtune_jax.core.method import Evidence
from subtune_jax.data import augment, batches, dataset
from subtune_jax.training.setup import Setup

VIEW = augment.Augment(crop=0.2, flip=True, colour=0.4)
Batch = dict[str, Any]


def make(setup: Setup) -> Evidence:
    """The evidence of a setup, on batches of its size.

    `batches` are not augmented. Of `views`, each is a random part of at least a fifth
    of the image, maybe mirrored, in other colours. Texts, dense tasks and regressions
    have no views: the loss on them compares images that have one label each.
    """
    task = setup.task
    plain = not (task.dense or task.regression or setup.backbone.encode)
    count, size = len(setup.train.labels), setup.settings["batch_size"]
    return Evidence(
        params=setup.variables.params,
        blocks=setup.backbone.blocks,
        loss_fn=functools.partial(_loss, setup),
        batches=functools.partial(_batches, setup),
        seed=setup.settings["seed"],
        epoch_batches=max(count // size, 1),
        train_steps=setup.settings["train_steps"],
        init=functools.partial(_random, setup),
        features=functools.partial(_features, setup) if plain else None,
        views=functools.partial(_views, setup) if plain else None,
    )


def _loss(setup: Setup, params: Any, batch: Batch) -> jax.Array:
    targets = dataset.target(batch["labels"], len(setup.task.classes))
    apply, stats = setup.backbone.apply, setup.variables.stats
    logits, _ = apply(params, stats, batch["inputs"])
    return setup.task.loss(logits, targets).mean()


def _features(setup: Setup, params: Any, batch: Batch) -> jax.Array:
    apply, stats = setup.backbone.apply, setup.variables.stats
    return apply(params, stats, batch["inputs"], stop=HEAD)[0]


def _random(setup: Setup, key: jax.Array) -> Any:
    classes, init = len(setup.task.classes), setup.backbone.init
    fresh = jax.jit(lambda key: init(key, classes).params)(key)
    return jax.tree.map(np.asarray, fresh)


def _batches(setup: Setup, count: int) -> Iterator[Batch]:
    for images, labels in _read(setup, count):
        inputs = dataset.normalize(setup.backbone, jnp.asarray(images))
        yield {"inputs": inputs, "labels": labels}


def _views(setup: Setup, count: int) -> Iterator[Batch]:
    seed = setup.settings["seed"]

    @jax.jit
    def view(drawn: jax.Array, images: jax.Array) -> jax.Array:
        single = functools.partial(augment.single, VIEW)
        return dataset.normalize(setup.backbone, jax.vmap(single)(drawn, images))

    for step, (images, labels) in enumerate(_read(setup, count)):
        drawn = augment.draw(VIEW, seed, step, 2 * len(images))
        twice = np.concatenate([images, images])
        yield {"inputs": view(drawn, twice), "labels": np.tile(labels, 2)}


def _read(setup: Setup, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels `[B, H, W, 3]` or tokens, and labels `[B, ...]` of the first batches."""
    train, size = setup.train, setup.settings["batch_size"]
    seed, total = setup.settings["seed"], len(train.labels)
    order = batches.shuffled(seed, total, 0, max(count, 1) * size)
    for where in order.reshape(-1, size)[:count]:
        inputs = train.read(where)
        if train.lengths is not None:  # cut to the longest text of the batch
            inputs = inputs[:, : train.lengths[where].max()]
        tokens = setup.backbone.encode is not None
        yield (inputs if tokens else inputs.astype(np.float32)), train.labels[where]
