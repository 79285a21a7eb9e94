"""S2FT: whole attention heads, MLP channels or neurons, drawn at random.

Source: Yang et al., "S2FT: Efficient, Scalable and Generalizable LLM Fine-tuning by
Structured Sparsity", arXiv:2412.06289, and its released code. Both pick heads and MLP
channels, bring them to the front of the matrices that they couple, and train the dense
slices. The paper compares ways to pick and finds a random one good; the code ships
that one, by default 3 % of the channels, and of these the rows of the down projection
alone. `part="down"` is that. We leave the matrices in their order: the compiled step
trains whole rows and columns as slices anyway (`products`), and the delta of a base
whose channels were moved would fit no other base. `coupled.permute` moves them for who
wants contiguous memory.
"""

from typing import Any

from subtune_jax import (
    Evidence,
    Mask,
    Selector,
    check_choice,
    choose,
    coupled,
    score_then_choose,
    scores,
    structured,
)

TINY: dict[str, Any] = {"part": "neurons", "fraction": 0.2}
PARTS = ("channels", "down", "heads", "neurons")


def make(
    fraction: float = 0.03,
    part: str = "down",
    head_width: int = 64,
    among: str = r".*(kernel|bias)",
) -> Selector:
    """Trains a share of the network's parts, the same ones for the same seed.

    Args:
      fraction: share in [0, 1] of the parts of each block, or of each array for
        neurons, one part at least unless it is 0.
      part: what is trained as a whole: `"channels"`, columns of fc1 with rows of fc2;
        `"down"`, these rows alone; `"heads"`, columns of query, key and value with rows
        of out; `"neurons"`, columns of every kernel, in networks of any kind.
      head_width: width of an attention head in columns, 1 or more; for `"heads"` alone.
      among: regular expression over whole paths: the arrays that may be trained.

    Raises:
      ValueError: an unknown part or a number out of its range; in `init`, the network
        has no such parts.
    """
    check_choice("s2ft part", part, PARTS)
    choose.share(fraction, 1)  # refuses what is no share before anything is drawn

    def score(evidence: Evidence, leaves: Any) -> Any:
        return scores.random(leaves, evidence.seed)

    def best(draws: Any) -> Mask:
        if part == "neurons":
            return structured.columns(draws, fraction=fraction)
        if part == "heads":
            groups, width = coupled.heads(draws), head_width
        else:
            groups, width = coupled.channels(draws), 1
        if part == "down":
            groups = {
                name: [(path, axis) for path, axis in members if axis == 0]
                for name, members in groups.items()
            }
        return coupled.coupled(draws, groups, fraction, width=width)

    return score_then_choose(score, best, among)
