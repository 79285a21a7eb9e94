"""Named blocks, whole: what SubTuning and surgical fine-tuning train once chosen.

Source: Kaplun et al., "Less is More: Selective Layer Finetuning with SubTuning",
arXiv:2302.06354; Lee et al., "Surgical Fine-Tuning Improves Adaptation to
Distribution Shifts", arXiv:2210.11466. `profile` and `search` find good blocks; this
file trains given ones. Both papers' code keeps batch statistics of frozen blocks, as
we do; the surgical code also keeps those of trained blocks (the whole model runs in
evaluation mode), and its first option joins the first convolution to the first stage,
which here are two names.
"""

from collections.abc import Sequence
from typing import Any

from subtune_jax import Evidence, Selection, Selector, masks, near

TINY: dict[str, Any] = {"pattern": ".*"}


def make(names: Sequence[str] = (), pattern: str | None = None) -> Selector:
    """Trains the blocks of `names`, or whatever `pattern` matches.

    Args:
      names: names of the blocks, in any order; not the head, which is always trained.
      pattern: regular expression that matches all of a leaf's path `a/b/c`, or of a
        leading part of it: `layer[34]_.*` takes blocks, `.*/attention` parts of them.

    Raises:
      ValueError: not exactly one of the two is given; in `init`, there is no such
        block or nothing matches.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    if bool(names) == (pattern is not None):
        raise ValueError(f"{names=}, {pattern=}; exactly one of them is needed")

    def init(evidence: Evidence) -> Selection:
        base, head = evidence.blocks[:-1], evidence.blocks[-1:]
        for name in names:
            if name not in base:
                raise ValueError(f"no base block named {name!r}; {near(name, base)}")
        if pattern is None:
            return Selection(masks.from_blocks(evidence.params, names))
        whole = f"(?:{pattern})(?:/.*)?"
        return Selection(masks.from_regex(evidence.params, whole, skip=head))

    return Selector(init)
