"""Losses of single examples and metrics of whole splits."""

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy `[B]` in nats of `logits` `[B, C]` against `targets` `[B, C]`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share in [0, 1] of rows whose largest logit is at the label; ties to the first.

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    return float(np.mean(np.argmax(logits, axis=-1) == labels))
