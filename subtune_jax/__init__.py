"""Selective fine-tuning with sparse masked updates.

Choose where a pretrained network may change, train only there, ship only the change:

    scores = st.scores.gradient(loss_fn, params, batches, reduce="abs_of_sum")
    mask = st.choose.top_per_neuron(scores, k=1)
    tx = st.compact(optax.adamw(1e-3), mask)
    ...
    st.delta.save(path, base=params0, tuned=params, mask=mask)
    params = st.delta.load(path, base=params0)
"""

from subtune_jax import choose, delta, masks, scores
from subtune_jax.updates import compact, masked

__all__ = ["choose", "compact", "delta", "masked", "masks", "scores"]
