"""Losses of single examples and metrics of whole splits."""

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy `[B]` in nats of `logits` `[B, C]` against `targets` `[B, C]`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def squared(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error `[B]` of predictions `[B, 1]` against numbers `[B, 1]`."""
    wide = logits.astype(jnp.float32) - targets.astype(jnp.float32)
    return jnp.sum(wide**2, axis=-1)


def contrastive(
    features: jax.Array, labels: jax.Array, temperature: float = 0.07
) -> jax.Array:
    """Supervised contrastive loss, the mean over the batch, in nats; needs no head.

    With `z_i` the features of unit length and `s_ij = z_i z_j / temperature`, anchor i
    loses the mean over its positives p, the other rows of its label, of
    `log sum_(a != i) exp(s_ia) - s_ip`. An anchor without positives loses nothing, and
    counts in the mean.

    Args:
      features: `[B, D]`.
      labels: integers `[B]`.
      temperature: above 0.

    Source: Khosla et al., "Supervised Contrastive Learning", arXiv:2004.11362
    (equation 2), with as base temperature the temperature itself.
    """
    wide = features.astype(jnp.float32)
    # The root of the sum, not `norm`: of a row of zeros that has the gradient NaN.
    unit = wide * jax.lax.rsqrt(jnp.sum(wide**2, axis=-1, keepdims=True) + 1e-12)
    similar = unit @ unit.T / temperature
    others = ~jnp.eye(len(features), dtype=bool)
    positive = others & (labels[:, None] == labels[None, :])
    total = jax.nn.logsumexp(similar, axis=1, keepdims=True, where=others)
    lost = jnp.sum(jnp.where(positive, total - similar, 0.0), axis=1)
    return jnp.mean(lost / jnp.maximum(positive.sum(1), 1))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share in [0, 1] of rows whose largest logit is at the label; ties to the first.

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    return float(np.mean(np.argmax(logits, axis=-1) == labels))
