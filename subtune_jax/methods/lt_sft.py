"""LT-SFT: the elements that full fine-tuning moves furthest, as in a lottery ticket.

Source: Ansell et al., "Composable Sparse Fine-Tuning for Cross-Lingual Transfer",
arXiv:2110.07560, and its released code (cambridgeltl/composable-sft). Full fine-tuning
first; then the elements with the largest `abs(tuned - base)` of all arrays together;
then everything is set back and these are trained, with a new optimiser and the head.
Here the selection is the first two of these: training starts from the base anyway.

The scripts tune for three passes at a rate of 5e-5, freeze the layer norms throughout
and select 8 % of the base (14.2 M of multilingual BERT); the head is trained in both
stages and not selected from. So it is here. The code's trainer also clips the gradient,
lowers the rate linearly and uses dropout; here the rate is constant and the network in
evaluation mode. Left out: the penalty on the L1 distance from the base, which is off by
default, and the selection of `1/n` of the elements in each of n rounds (n is 1). The
code keeps whatever reaches a threshold, with all ties; we keep an exact number.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from subtune_jax import Evidence, Selector, choose, masks, score_then_choose, trees

EPOCHS = 3
TINY: dict[str, Any] = {"lottery_steps": 2, "learning_rate": 1e-3}
Flat = dict[str, Any]


def make(
    fraction: float = 0.08,
    lottery_steps: int = 0,
    learning_rate: float = 5e-5,
    among: str = r"(?!.*norm).*",
) -> Selector:
    """Trains the elements that full fine-tuning moves furthest, ties to the first.

    Args:
      fraction: share in [0, 1] of all elements of `among` together.
      lottery_steps: steps of full fine-tuning that come before the choice, a batch
        each, 0 or more; 0 for three passes through the training examples.
      learning_rate: learning rate of the Adam of these steps, above 0.
      among: regular expression over whole paths: the arrays that are tuned and chosen
        from; the head is tuned along with them.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing.
    """
    choose.share(fraction, 1)  # refuses what is no share before anything is computed
    if lottery_steps < 0 or learning_rate <= 0:
        numbers = f"{lottery_steps=}, {learning_rate=}"
        raise ValueError(f"lt_sft {numbers}; they must be 0 or more, and above 0")

    def score(evidence: Evidence, leaves: Flat) -> Flat:
        head = masks.find(evidence.params, ".*", evidence.blocks[:-1])
        steps = lottery_steps or EPOCHS * evidence.epoch_batches
        tuned = _tune(evidence, {**leaves, **head}, steps, learning_rate)
        return {
            path: np.abs(np.asarray(tuned[path]) - np.asarray(base, np.float32))
            for path, base in leaves.items()
        }

    def best(distances: Flat) -> Any:
        return choose.by_scope(distances, "network", fraction)

    return score_then_choose(score, best, among)


def _tune(evidence: Evidence, start: Flat, steps: int, learning_rate: float) -> Flat:
    """`start` after so many steps of Adam, in float32; all other leaves stay."""
    transform = optax.adam(learning_rate)

    def loss(values: Flat, fixed: Any, batch: Any) -> jax.Array:
        params = trees.map_leaves(lambda path, leaf: values.get(path, leaf), fixed)
        return evidence.loss_fn(params, batch)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(values: Flat, state: Any, fixed: Any, batch: Any) -> Any:
        grads = jax.grad(loss)(values, fixed, batch)
        updates, state = transform.update(grads, state, values)
        return optax.apply_updates(values, updates), state

    # Copies: the steps donate their values, and the base must outlive them.
    values = {path: jnp.array(leaf, jnp.float32) for path, leaf in start.items()}
    state = transform.init(values)
    for batch in evidence.batches(steps):
        values, state = step(values, state, evidence.params, batch)
    return values
