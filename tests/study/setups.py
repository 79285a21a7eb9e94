"""Small setups of images and of texts, on one device."""

import jax

from subtune_jax.backbones import bert
from subtune_jax.commands import configs
from subtune_jax.core import devices
from subtune_jax.training import setup

BATCH = 8
ONE_BLOCK = {"name": "bert", **bert.TINY, "variant": (16, 1, 2, 32, 97, 16)}


def of_images(backbone, **changes):
    return prepared(
        {
            "task": {"name": "structured", "examples": 64, "image_size": 32},
            "backbone": backbone,
            "method": {"name": "head"},
            "optimizer": {"clip_norm": 1.0, "weight_decay": 0.1},
            "batch_size": BATCH,
            **changes,
        }
    )


def of_texts(reviews, **changes):
    return prepared(text_config(reviews, **changes))


def text_config(reviews, **changes):
    """A complete config of the texts in a CSV file."""
    return configs.complete(
        {
            "task": {"name": "text_file", "path": str(reviews)},
            "backbone": ONE_BLOCK,
            "method": {"name": "random", "count": 1},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "batch_size": BATCH,
            **changes,
        }
    )


def prepared(config):
    where = devices.choose("shard_map", jax.devices()[:1])
    return setup.prepare(configs.complete(config))._replace(devices=where)
