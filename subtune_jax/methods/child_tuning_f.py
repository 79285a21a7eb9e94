"""Child-Tuning-F: in every step the elements that a coin picks.

Source: Xu et al., "Raise a Child in Large Language Model: Towards Effective and
Generalizable Fine-tuning", arXiv:2109.05687, and its released code: in every step each
element is trained with probability `keep_ratio`, the code's `reserve_p`, and its
gradient divided by it. The code draws for every parameter of the network; we draw, by
default, for the kernels of the repeated blocks alone, those that `child_tuning_d`
chooses from. The rule of the code is `pattern=".*", among=".*", head=True`.

The code masks the gradient, which is clipped by then, before AdamW: momentum and decay
move all. So does `optimizer.moving="mask_gradient"` here; by default an element that is
not picked rests in that step, and so do its moments.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax import Evidence, Moved, Seen, Selection, Selector, reach

SIDES = 1 << 16  # of the coin
TINY: dict[str, Any] = {}


def make(
    keep_ratio: float = 0.3,
    pattern: str = reach.REPEATED,
    among: str = r".*kernel",
    head: bool = False,
    outside: bool = True,
) -> Selector:
    """Trains a drawn share of each array, another one in every step.

    The memory is `key`, uint32 `[2]`, the data of a threefry key, which never changes:
    a step's draw follows from it and the step's number.

    Args:
      keep_ratio: probability in (0, 1] that an element is trained in a step, to the
        nearest 65536th.
      pattern: regular expression over whole block names: the repeated blocks.
      among: regular expression over whole paths: the arrays of these blocks that are
        drawn from.
      head: whether the head may be one of these blocks; else it is trained whole.
      outside: whether all other leaves below the head are trained besides; counted
        apart.

    Raises:
      ValueError: `keep_ratio` is out of its range; in `init`, no array is named.
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"child_tuning_f keep_ratio={keep_ratio} is outside (0, 1]")

    def init(evidence: Evidence) -> Selection:
        key = jax.random.key(evidence.seed, impl="threefry2x32")
        memory = {"key": np.asarray(jax.random.key_data(key))}
        both = f"(?=(?:{pattern})/)(?:{among})"
        return reach.start(evidence, both, head, outside, memory)

    def update(seen: Seen, selection: Selection) -> Moved:
        data = selection.memory["key"]
        key = jax.random.wrap_key_data(data, impl="threefry2x32")
        key, mask, grads = jax.random.fold_in(key, seen.step), {}, {}
        for number, (path, marks) in enumerate(sorted(selection.mask.items())):
            own = jax.random.fold_in(key, number)
            mask[path] = picked = draw(own, marks.shape, keep_ratio)
            grads[path] = jnp.where(picked, seen.grads[path] / keep_ratio, 0)
        return Moved(selection._replace(mask=mask), {**seen.grads, **grads})

    return Selector(init, update)


def draw(key: jax.Array, shape: tuple[int, ...], ratio: float) -> jax.Array:
    """Booleans, each true with probability `ratio`, in (0, 1], in steps of 1 / 65536.

    Two are made of each number of 32 bits: on a CPU drawing is what this method costs.
    """
    size = int(np.prod(shape))
    words = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
    most = max(round(ratio * SIDES), 1) - 1
    return (halves <= jnp.uint16(most)).reshape(shape)
