"""Selective fine-tuning with sparse masked updates.

Choose where a pretrained network may change, train only there, ship only the change:

    scores = st.scores.gradient(loss_fn, params, batches, reduce="abs_of_sum")
    mask = st.choose.top_per_neuron(scores, k=1)
    tx = st.compact(optax.adamw(1e-3), mask)
    ...
    st.delta.save(path, base=params0, tuned=params, mask=mask)
    params = st.delta.load(path, base=params0)
"""

import importlib
from typing import Any

_HOME = {  # functions, and where they live
    "compact": "updates",
    "masked": "updates",
    "moving_masked": "moving_updates",
}
__all__ = [
    "choose",
    "compact",
    "coupled",
    "delta",
    "masked",
    "masks",
    "moments",
    "moving",
    "moving_masked",
    "multitask",
    "scores",
    "selected",
    "stability",
    "structured",
]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, when it is: `python -m subtune_jax.X` runs X once."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
