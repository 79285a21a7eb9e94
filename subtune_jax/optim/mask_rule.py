"""What a method does during training, checked against the run's other choices."""

from subtune_jax.core.method import Selector, hold
from subtune_jax.optim.dynamic_mask import Rule
from subtune_jax.optim.optimizer import Optimizer
from subtune_jax.optim.partition import Partition


def make(
    selector: Selector | None, optimizer: Optimizer, partition: Partition
) -> Rule | None:
    """How masks move in a run; None for a static method that adds nothing to a step.

    Raises:
      ValueError: the optimiser cannot do what was asked, or is asked for both a dynamic
        mask and what has no meaning beside it.
    """
    if selector is None or (
        selector.update is hold and selector.view is None and selector.penalty is None
    ):
        return None
    policy = optimizer.moments or selector.moments
    places = partition.places
    given = f"optimizer moving={optimizer.moving!r}, moments={policy!r}"
    if optimizer.moving != "mask_update" and places:
        raise ValueError(f"{given}; this method moves positions, it has mask_update")
    if optimizer.rgn_steps and partition.moving:
        raise ValueError(
            f"optimizer rgn_steps={optimizer.rgn_steps}; masks move: give 0"
        )
    if optimizer.ema and places:
        raise ValueError(f"optimizer ema={optimizer.ema}; positions move: give 0")
    if policy == "seed" and not optimizer.ages:
        raise ValueError(f"{given}; adam and adamw have it, else give 'reset'")
    return Rule(selector, optimizer.moving, policy, optimizer.decays)
