"""Top-k inside a compiled program: the largest elements, chosen exactly.

`choose` does the same on the host. No sort: a threshold is found bit by bit, each time
by counting what reaches it, so that time and memory grow with the number of elements
alone. Of 0.6 M elements that takes one core 3 ms; a stable sort took it 300 ms.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from subtune_jax.selection import score_arrays

LOWEST = -(2**31)  # the bits of -0.0, and the least int32
EXACT = 1 << 24  # up to here every whole number is a float32


def mask(scores: jax.Array, count: int) -> jax.Array:
    """Marks the `count` largest scores, ties to the lowest flat position.

    Args:
      scores: of any shape, read as float32. Zeros are equal whatever their sign; a NaN
        ranks beyond the infinity of its sign.
      count: static, in [0, the number of scores].

    Returns:
      Booleans of the scores' shape, exactly `count` of them true.

    Raises:
      ValueError: `count` is out of range.
    """
    count = score_arrays.whole("count", count, 0, scores.size)
    keys = _ordered(scores.astype(jnp.float32).reshape(-1))
    threshold = _threshold(keys, count)
    above, ties = keys > threshold, keys == threshold
    last = _last(ties, count - _number(above))
    return (above | (ties & (_places(keys) <= last))).reshape(scores.shape)


def masks(
    scores: Mapping[str, jax.Array], counts: Mapping[str, int]
) -> dict[str, jax.Array]:
    """`mask` of every array by its name.

    Arrays of one size and count go through one program, one after the other: it is
    compiled once, and a CPU that works at many arrays at a time reads each from memory
    again and again. They are copied for that.

    Raises:
      ValueError: a count is out of range.
    """
    alike: dict[tuple[int, int], list[str]] = {}
    for name, score in scores.items():
        alike.setdefault((score.size, counts[name]), []).append(name)
    marked = {}
    for (_, count), names in alike.items():
        rows = jnp.stack([scores[name].reshape(-1) for name in names])
        marks = jax.lax.map(lambda row, count=count: mask(row, count), rows)
        for name, flat in zip(names, marks, strict=True):
            marked[name] = flat.reshape(scores[name].shape)
    return {name: marked[name] for name in scores}


def positions(scores: jax.Array, count: int) -> jax.Array:
    """Where the `count` largest scores are: flat positions, int32 `[count]`, sorted.

    Args:
      scores: as in `mask`, fewer than 2**31.
      count: static, in [0, the number of scores].

    Raises:
      ValueError: `count` is out of range.
    """
    found = jnp.flatnonzero(mask(scores, count), size=count)
    return found.astype(jnp.int32)


def _ordered(scores: jax.Array) -> jax.Array:
    """int32 in the order of the scores, by their bits alone: exact for the tiniest."""
    bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
    bits = jnp.where(bits == LOWEST, 0, bits)
    # Of negative numbers larger bits mean less: all but the sign are turned round.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _threshold(keys: jax.Array, count: int) -> jax.Array:
    """The largest number that at least `count` of `keys` reach."""

    def halve(number, found):
        higher = found + jax.lax.shift_left(jnp.int32(1), 31 - number)
        return jnp.where(_number(keys >= higher) >= count, higher, found)

    # The first step adds 2**31, which wraps from the least int32 to 0.
    return jax.lax.fori_loop(0, 32, halve, jnp.int32(LOWEST))


def _last(ties: jax.Array, needed: jax.Array) -> jax.Array:
    """The place of the tie that completes the count; the last place if all do."""
    places = _places(ties)
    end = jnp.int32(ties.size - 1)

    def halve(bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = _number(ties & (places <= middle)) >= needed
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    low = jnp.where(_number(ties) == needed, end, 0)  # nearly always: no search then
    return jax.lax.while_loop(lambda b: b[0] < b[1], halve, (low, end))[1]


def _number(flags: jax.Array) -> jax.Array:
    """How many of the flat `flags` are true, exact."""
    # A CPU adds floats up three times as fast as integers; so far they are exact.
    parts = [flags[at : at + EXACT] for at in range(0, flags.size, EXACT)]
    numbers = [jnp.sum(part, dtype=jnp.float32).astype(jnp.int32) for part in parts]
    return sum(numbers, jnp.int32(0))


def _places(flat: jax.Array) -> jax.Array:
    return jax.lax.iota(jnp.int32, flat.size)
