"""DPS Dense: by turns train all, and what had the largest squared gradients meanwhile.

Source: Zhang et al., "Fine-Tuning Pre-Trained Language Models Effectively by Optimizing
Subnetworks Adaptively", arXiv:2211.01642, and its released code. Training goes in
cycles of two stages of equal length. In the first everything is trained, and of each
weight the squared gradients of batches are summed, anew in every cycle. In the second
the elements of each array with the largest sums are trained: `1 - drop_ratio` of them.
The code's flag for `drop_ratio` is called `reserve_p` and described as the probability
of the subnetwork; 0.3 keeps 70 % nonetheless, and so it does here.

The code masks the dense layers, pooler and classifier among them, and trains
embeddings, norms and biases throughout; so do we. Elsewhere than in BERT kernels are
also those of convolutions and of patches (`embed/kernel` of a ViT); see `among`.

The code keeps whatever reaches the smallest sum that is kept, with all ties; we keep
that exact number, ties to the first. It masks the gradient before AdamW, whose momentum
and decay then go on moving what is masked: `optimizer.moving="mask_gradient"` does so
too, while by default what is masked does not move. It counts forward passes, so
that accumulating gradients shortens its stages; we count steps. It divides the squares
by 1000, which changes no order; in half precision its squares are those of scaled
gradients, ours never. Its scripts turn dropout off below 2000 steps: a matter of the
network here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import Evidence, Moved, Seen, Selection, Selector, reach, stages

TINY: dict[str, Any] = {"update_ratio": 0.25}


def make(
    drop_ratio: float = 0.3,
    update_ratio: float = 0.05,
    stage_steps: int = 0,
    among: str = r".*kernel",
    head: bool = True,
    outside: bool = True,
) -> Selector:
    """Trains everything and a share of each array by turns.

    The memory is `squares`, path -> float32 of the leaf's shape, and `stage_steps`,
    int32.

    Args:
      drop_ratio: share in [0, 1) of each array that the second stage leaves alone; of n
        elements it trains `ceil(n * (1 - drop_ratio))`. The code calls it `reserve_p`.
      update_ratio: share in (0, 1] of the run's steps that a stage takes, rounded down,
        one step at least.
      stage_steps: length of a stage in steps, in place of `update_ratio`; 0 for
        `update_ratio`.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.
      head: whether the mask is also over arrays of the head; else the head is trained
        whole.
      outside: whether all other leaves below the head are trained besides; counted
        apart.

    Raises:
      ValueError: a number out of its range; in `init`, `among` matches nothing, or
        nobody can tell how long the run is.
    """
    stages.check(drop_ratio, update_ratio, stage_steps)

    def init(evidence: Evidence) -> Selection:
        steps = stages.length(update_ratio, stage_steps, evidence)
        selection = reach.start(evidence, among, head, outside)
        squares = {
            path: np.zeros(leaf.shape, np.float32)
            for path, leaf in reach.values(evidence, selection).items()
        }
        memory = {"squares": squares, "stage_steps": np.asarray(steps, np.int32)}
        return selection._replace(memory=memory)

    def update(seen: Seen, selection: Selection) -> Moved:
        steps = selection.memory["stage_steps"]
        opens = seen.step % steps == 0
        explores = (seen.step // steps) % 2 == 0
        squares = {
            path: jnp.where(
                explores, stages.add_square(total, seen.grads[path], opens), total
            )
            for path, total in selection.memory["squares"].items()
        }
        held = {path: selection.mask[path] for path in squares}
        mask = jax.lax.cond(  # only the step that opens the second stage pays for it
            opens & ~explores, lambda: stages.largest(squares, drop_ratio), lambda: held
        )
        mask = {path: marks | explores for path, marks in mask.items()}
        memory = selection.memory | {"squares": squares}
        return Moved(selection._replace(mask=selection.mask | mask, memory=memory))

    return Selector(init, update)
