"""Setting up a run: plug-ins, data, the base and its new head, all checked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, registry, trees
from subtune_jax.core.contracts import HEAD, Backbone, Split, Task, Variables
from subtune_jax.core.devices import Devices
from subtune_jax.core.method import Selector
from subtune_jax.data import augment, batches, dataset, dense
from subtune_jax.data.augment import Augment
from subtune_jax.data.batches import Rows
from subtune_jax.data.dataset import Examples
from subtune_jax.optim import optimizer
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.training.settings import Settings

BATCH_NORMS = ("frozen", "trained")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Setup(NamedTuple):
    """Everything that a run needs before it selects.

    Attributes:
      settings: complete.
      task, backbone, selector, optimizer, augment, devices: the parts.
      base: pretrained variables without the head, host arrays.
      variables: the base with its new head, host arrays.
      train, validation: examples; the test split is not touched yet.
    """

    settings: Settings
    task: Task
    backbone: Backbone
    selector: Selector
    optimizer: Optimizer
    augment: Augment
    devices: Devices
    base: Variables
    variables: Variables
    train: Examples
    validation: Examples


def prepare(settings: Settings) -> Setup:
    """A `Setup` out of complete settings.

    Raises:
      ValueError: a name, number, file or example is not what it must be.
    """
    registry.check_choice("batch_norm", settings["batch_norm"], BATCH_NORMS)
    registry.check_choice("dtype", settings["dtype"], DTYPES)
    for key in ("batch_size", "train_steps"):
        if settings[key] < 1:
            raise ValueError(f"{key}={settings[key]}; it must be 1 or more")
    selector = registry.load("methods", settings["method"])
    updates = optimizer.make(**settings["optimizer"])
    changes = augment.make(**settings["augment"])
    where = devices.choose(settings["parallel"])
    backbone = registry.load("backbones", settings["backbone"])
    task = registry.load("tasks", settings["task"])
    if task.dense:
        backbone = _dense(backbone, task, changes)
    _check_kind(backbone, task, changes)
    size, seed = settings["batch_size"], settings["seed"]
    train = dataset.subset(task.train, settings["train_examples"], seed)
    if size > len(train.labels):
        count = len(train.labels)
        raise ValueError(f"batch_size={size}; there are {count} training examples")
    held = dataset.subset(task.validation, settings["validation_examples"], seed)
    params, stats = (  # contiguous copies on the host, paths in order
        {path: np.ascontiguousarray(leaf) for path, leaf in trees.flatten(tree).items()}
        for tree in backbone.load()
    )
    base = Variables(trees.nest(params), trees.nest(stats))
    train_examples = examples(backbone, train)
    if task.dense:
        _check_masks(train_examples, task)
    head = new_head(backbone, len(task.classes), seed)
    return Setup(
        settings=settings,
        task=task,
        backbone=backbone,
        selector=selector,
        optimizer=updates,
        augment=changes,
        devices=where,
        base=base,
        variables=Variables({**base.params, HEAD: head}, base.stats),
        train=train_examples,
        validation=examples(backbone, held),
    )


def examples(backbone: Backbone, split: Split) -> Examples:
    """A split as the network takes it.

    Raises:
      ValueError: an example cannot be read; the message names its file.
    """
    if backbone.encode is None:
        return dataset.examples(split, backbone.input_shape[0])
    encoded = backbone.encode([split.read(i) for i in range(len(split.labels))])
    return dataset.tokens(encoded, split.labels, backbone.lengths)


def dtype(setup: Setup) -> Any:
    """The type of the computation."""
    return DTYPES[setup.settings["dtype"]]


def batch_rows(setup: Setup, *, pieces: int = 1) -> Rows:
    """The rows of a batch, padded to the devices and to `pieces` a device."""
    multiple = setup.devices.size * pieces
    size = setup.settings["batch_size"]
    return batches.rows(size, multiple, jax.process_index(), jax.process_count())


def new_head(backbone: Backbone, classes: int, seed: int) -> Any:
    """The head of a random network of as many classes, host arrays."""
    fresh = jax.jit(lambda key: backbone.init(key, classes).params[HEAD])
    return jax.tree.map(np.asarray, fresh(jax.random.key(seed)))


def _dense(backbone: Backbone, task: Task, changes: Augment) -> Backbone:
    """The network with a head for every place, of one that has such a form."""
    if backbone.dense is None:
        what = f"backbone {backbone.name} has no dense head; vit has"
        raise ValueError(f"{what}, and task {task.name} needs one")
    if augment.mixes(changes):
        given = f"augment mixup={changes.mixup}, cutmix={changes.cutmix}"
        raise ValueError(f"{given}; masks are not mixed, both must be 0")
    return backbone.dense()


def _check_kind(backbone: Backbone, task: Task, changes: Augment) -> None:
    """Refuses texts for a network of images, and images for one of texts."""
    takes = "image" if backbone.encode is None else "text"
    has = "text" if "text" in task.train.read(0) else "image"
    if takes != has:
        what = f"task {task.name} has {has}s"
        raise ValueError(f"{what}; backbone {backbone.name} takes {takes}s")
    if has == "text" and augment.active(changes):
        raise ValueError(f"augment={changes._asdict()}; texts are not augmented")


def _check_masks(train: Examples, task: Task) -> None:
    """Masks of black and white, 0 and 255, would pass as background and ignored."""
    classes = [i for i in np.unique(train.labels) if i != dense.IGNORED]
    if len(classes) < 2:
        names = ", ".join(task.classes[i] for i in classes) or "no class"
        what = f"the training masks of task {task.name} hold {names} alone"
        raise ValueError(f"{what}, and pixels of {dense.IGNORED}, which are ignored")
