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
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subtune_jax import delta, scores
    from subtune_jax.commands.train import run
    from subtune_jax.core import losses, trees
    from subtune_jax.core.contracts import (
        HEAD,
        Backbone,
        Mask,
        Params,
        Split,
        Task,
        Variables,
    )
    from subtune_jax.core.method import (
        Additive,
        Evidence,
        Moved,
        Probe,
        Seeds,
        Seen,
        Selection,
        Selector,
        hold,
    )
    from subtune_jax.core.registry import check_choice, near
    from subtune_jax.optim import dynamic_mask as moving
    from subtune_jax.optim import moments
    from subtune_jax.optim.dynamic_updates import moving_masked
    from subtune_jax.optim.dynamic_updates import moving_masked as dynamic_masked
    from subtune_jax.optim.masked_updates import compact, masked
    from subtune_jax.selection import (
        choose,
        coupled,
        masks,
        reach,
        stability,
        stages,
        structured,
        top_k_traced,
    )
    from subtune_jax.selection.choose import score_then_choose
    from subtune_jax.serving import multitask
    from subtune_jax.sparse_step import selected
    from subtune_jax.sparse_step import selected as sparse

__all__ = [
    "Additive",
    "Backbone",
    "Evidence",
    "HEAD",
    "Mask",
    "Moved",
    "Params",
    "Probe",
    "Seeds",
    "Seen",
    "Selection",
    "Selector",
    "Split",
    "Task",
    "Variables",
    "check_choice",
    "choose",
    "compact",
    "coupled",
    "delta",
    "dynamic_masked",
    "hold",
    "losses",
    "masked",
    "masks",
    "moments",
    "moving",
    "moving_masked",
    "multitask",
    "near",
    "reach",
    "run",
    "score_then_choose",
    "scores",
    "selected",
    "sparse",
    "stability",
    "stages",
    "structured",
    "top_k_traced",
    "trees",
]

_HOMES = {  # public name -> its module, or its module and its name there
    "Additive": "core.method:Additive",
    "Backbone": "core.contracts:Backbone",
    "Evidence": "core.method:Evidence",
    "HEAD": "core.contracts:HEAD",
    "Mask": "core.contracts:Mask",
    "Moved": "core.method:Moved",
    "Params": "core.contracts:Params",
    "Probe": "core.method:Probe",
    "Seeds": "core.method:Seeds",
    "Seen": "core.method:Seen",
    "Selection": "core.method:Selection",
    "Selector": "core.method:Selector",
    "Split": "core.contracts:Split",
    "Task": "core.contracts:Task",
    "Variables": "core.contracts:Variables",
    "check_choice": "core.registry:check_choice",
    "choose": "selection.choose",
    "compact": "optim.masked_updates:compact",
    "coupled": "selection.coupled",
    "delta": "delta",
    "dynamic_masked": "optim.dynamic_updates:moving_masked",
    "hold": "core.method:hold",
    "losses": "core.losses",
    "masked": "optim.masked_updates:masked",
    "masks": "selection.masks",
    "moments": "optim.moments",
    "moving": "optim.dynamic_mask",
    "moving_masked": "optim.dynamic_updates:moving_masked",
    "multitask": "serving.multitask",
    "near": "core.registry:near",
    "reach": "selection.reach",
    "run": "commands.train:run",
    "score_then_choose": "selection.choose:score_then_choose",
    "scores": "scores",
    "selected": "sparse_step.selected",
    "sparse": "sparse_step.selected",
    "stability": "selection.stability",
    "stages": "selection.stages",
    "structured": "selection.structured",
    "top_k_traced": "selection.top_k_traced",
    "trees": "core.trees",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, inside = _HOMES[name].partition(":")
    try:
        found = importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        process = importlib.import_module(f"{__name__}.core.process")
        raise process.told(f"st.{name}", error) from error
    value = getattr(found, inside) if inside else found
    for public, home in _HOMES.items():  # whatever is loaded by now is not asked for
        module, _, inside = home.partition(":")
        loaded = sys.modules.get(f"{__name__}.{module}")
        if loaded is not None and hasattr(loaded, inside or "__name__"):
            globals()[public] = getattr(loaded, inside) if inside else loaded
    return value
