"""GMT: in every step the elements of each array with the largest gradient.

Source: Li et al., "Gradient-Mask Tuning Elevates the Upper Limits of LLM Performance",
arXiv:2406.15330, also "Enhancing Large Language Model Performance with Gradient-Based
Parameter Selection". Of the gradient of a whole step, the mean over all that was
accumulated, it keeps what is largest in absolute value and updates nothing else. The
paper finds results hardly depend on the share; its share, and whether it is counted for
each array or for the network, we could not read, and there is no released code that we
know of. Here it is a share of each array, half of it by default.

A mask of the gradient alone, before Adam, would not keep the rest in place: momentum
and decay move it (`optimizer.moving="mask_gradient"`). By default what is not kept in a
step does not move in it, and its moments rest until it is kept again.

The dense form has the state of training everything and saves nothing. The compact one
has masters and moments of what is kept alone, at the price that moments of what is not
are forgotten: an element begins anew whenever it comes back, and with a mask that
changes much Adam becomes descent by signs.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from subtune_jax import (
    Evidence,
    Moved,
    Seen,
    Selection,
    Selector,
    choose,
    masks,
    reach,
    top_k_traced,
)

TINY: dict[str, Any] = {}


def make(
    keep_ratio: float = 0.5,
    among: str = r".*",
    head: bool = False,
    outside: bool = True,
    compact: bool = False,
) -> Selector:
    """Trains in each step the elements whose gradient is largest, ties to the first.

    Args:
      keep_ratio: share in (0, 1] of each array that is updated in a step, half rounded
        up, one element at least.
      among: regular expression over whole paths: the arrays that elements are chosen
        from.
      head: whether `among` may name arrays of the head; else the head is trained whole.
      outside: whether all other leaves below the head are trained besides; counted
        apart.
      compact: whether the mask moves as positions, with state for what is selected
        alone; impossible for the head.

    Raises:
      ValueError: `keep_ratio` is out of its range, or `head` is compact; in `init`,
        `among` matches nothing.
    """
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"gmt keep_ratio={keep_ratio} is outside (0, 1]")
    if head and compact:
        raise ValueError("gmt head=True, compact=True; only one of them can be")

    def init(evidence: Evidence) -> Selection:
        selection = reach.start(evidence, among, head, outside)
        return _few(evidence, selection, keep_ratio) if compact else selection

    def update(seen: Seen, selection: Selection) -> Moved:
        sizes = {path: jnp.abs(seen.grads[path]) for path in selection.mask}
        counts = {p: choose.share(keep_ratio, x.size) for p, x in sizes.items()}
        if compact:
            mask = {
                path: top_k_traced.positions(x, counts[path])
                for path, x in sizes.items()
            }
        else:
            mask = top_k_traced.masks(sizes, counts)
        return Moved(selection._replace(mask=mask))

    return Selector(init, update)


def _few(evidence: Evidence, selection: Selection, keep_ratio: float) -> Selection:
    """As many of each reached leaf as are kept: the first, until the first step."""
    flags = {}
    for path, leaf in reach.values(evidence, selection).items():
        places = np.arange(leaf.size).reshape(leaf.shape)
        flags[path] = places < choose.share(keep_ratio, leaf.size)
    mask = masks.fill(evidence.params, flags)
    return selection._replace(mask=mask, reach=None)
