"""A compiled step that a test puts together by hand."""

from subtune_jax.training import program
from subtune_jax.training.step import Fixed


def compiled(where, recipe, begin, positions, feed, key=None):
    """The program of `recipe` from `begin` = (state, frozen leaves)."""
    state, frozen = begin
    fixed = Fixed(frozen, positions, feed.resident, key)
    return program.compiled(where, recipe, state, fixed, feed)
