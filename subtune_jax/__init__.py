"""Selective fine-tuning with sparse masked updates.

Choose where a pretrained network may change, train only there, ship only the change:

    scores = st.scores.gradient(loss_fn, params, batches, reduce="abs_of_sum")
    mask = st.choose.top_per_neuron(scores, k=1)
    tx = st.compact(optax.adamw(1e-3), mask)
    ...
    st.delta.save(path, base=params0, tuned=params, mask=mask)
    params = st.delta.load(path, base=params0)

All public names are here; they are imported when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subtune_jax import delta, scores
    from subtune_jax.commands.train import run
    from subtune_jax.core.contracts import HEAD, Backbone, Split, Task, Variables
    from subtune_jax.core.method import Evidence, Selection, Selector
    from subtune_jax.optim import dynamic_mask as moving
    from subtune_jax.optim import moments
    from subtune_jax.optim.dynamic_updates import moving_masked
    from subtune_jax.optim.masked_updates import compact, masked
    from subtune_jax.selection import choose, coupled, masks, stability, structured
    from subtune_jax.serving import multitask
    from subtune_jax.sparse_step import selected

__all__ = [
    "Backbone",
    "Evidence",
    "HEAD",
    "Selection",
    "Selector",
    "Split",
    "Task",
    "Variables",
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
    "run",
    "scores",
    "selected",
    "stability",
    "structured",
]

_HOMES = {  # public name -> its module, or its module and its name there
    "Backbone": "core.contracts:Backbone",
    "Evidence": "core.method:Evidence",
    "HEAD": "core.contracts:HEAD",
    "Selection": "core.method:Selection",
    "Selector": "core.method:Selector",
    "Split": "core.contracts:Split",
    "Task": "core.contracts:Task",
    "Variables": "core.contracts:Variables",
    "choose": "selection.choose",
    "compact": "optim.masked_updates:compact",
    "coupled": "selection.coupled",
    "delta": "delta",
    "masked": "optim.masked_updates:masked",
    "masks": "selection.masks",
    "moments": "optim.moments",
    "moving": "optim.dynamic_mask",
    "moving_masked": "optim.dynamic_updates:moving_masked",
    "multitask": "serving.multitask",
    "run": "commands.train:run",
    "scores": "scores",
    "selected": "sparse_step.selected",
    "stability": "selection.stability",
    "structured": "selection.structured",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, inside = _HOMES[name].partition(":")
    found = importlib.import_module(f"{__name__}.{module}")
    globals()[name] = getattr(found, inside) if inside else found
    return globals()[name]
