"""Accumulating: one pass over batches, summed in one compiled function.

A `Measure` says what a batch adds. On several devices its first half sees the rows of
one device and its second half the sum over devices, so that numbers cross devices once
a batch, wherever a score stops being linear.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from subtune_jax.core import devices
from subtune_jax.core.contracts import Params
from subtune_jax.core.devices import AXIS, Devices


class Measure(NamedTuple):
    """What one batch adds to a sum.

    Attributes:
      local: (params, rows, share) -> tree that is summed over devices; `rows` are
        those of one device, `share` is their share of the batch's rows, in (0, 1].
      parts: that sum -> what is added, in float32.
    """

    local: Callable[[Params, Any, float], Any]
    parts: Callable[[Any], Any] = lambda sums: sums


def stream(
    measure: Measure,
    start: Any,
    params: Params,
    batches: Iterable[Any],
    where: Devices | None = None,
) -> Iterator[Any]:
    """Yields the sum over the batches so far, after each of them.

    A sum is given away when the next one is asked for: read it before. An iterator of
    batches is read once, a batch at a time.

    Args:
      measure: what a batch adds.
      start: tree of zeros with the shapes of the sum.
      params: the first argument of `measure.local`.
      batches: trees of arrays with a leading axis of rows.
      where: devices that share the rows of each batch, by shard_map whatever
        `where.mode`; None for the default device. Each process gives its own rows.

    Raises:
      ValueError: there are no batches, or the rows of one do not divide over the
        devices.
    """
    share = 1.0 if where is None else 1.0 / where.size

    def add(total: Any, params: Params, rows: Any) -> Any:
        local = measure.local(params, rows, share)
        if where is not None:
            local = jax.lax.psum(local, AXIS)
        return jax.tree.map(jnp.add, total, measure.parts(local))

    total = start
    if where is not None:
        # check_vma would sum the gradients over devices by itself, one by one.
        everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
        specs = (everywhere, everywhere, split)
        add = jax.shard_map(
            add, mesh=where.mesh, in_specs=specs, out_specs=everywhere, check_vma=False
        )
        total, params = devices.replicate(where, (start, params))
    compiled = jax.jit(add, donate_argnums=0)
    empty = True
    for batch in batches:
        rows = batch if where is None else _split(where, batch)
        total, empty = compiled(total, params, rows), False
        yield total
    if empty:
        raise ValueError("scores of 0 batches; at least one is needed")


def last(sums: Iterator[Any]) -> Any:
    """The last of the sums of `stream`."""
    total = next(sums)
    for total in sums:  # noqa: B007, B020
        pass
    return total


def read(total: Any, where: Devices | None) -> Any:
    """A sum as arrays of one device: NumPy arrays if it is on several."""
    return total if where is None else devices.to_host(total)


def zeros(params: Params) -> Params:
    """Float32 zeros with the shapes of `params`."""
    return jax.tree.map(lambda p: jnp.zeros(np.shape(p), jnp.float32), params)


def add_examples(
    function: Callable[[Params, Any], Params], params: Params, rows: Any
) -> Params:
    """The sum of `function(params, example)` over the rows.

    Args:
      function: (params, batch of one row) -> tree like `params`, of float32.
      params: nested dict of arrays.
      rows: tree of arrays with a leading axis.
    """

    # One at a time: XLA's CPU products of a vmapped batch of one took four to
    # fifteen times as long (131 k parameters and more), and B gradients of memory.
    def add(total: Params, example: Any) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, function(params, example)), None

    single = jax.tree.map(lambda x: jnp.expand_dims(x, 1), rows)
    return jax.lax.scan(add, zeros(params), single)[0]


def _split(where: Devices, batch: Any) -> Any:
    local = where.mesh.local_mesh.size
    for leaf in jax.tree.leaves(batch):
        shape = np.shape(leaf)
        if not shape or shape[0] % local:
            what = f"a batch has an array {shape}"
            raise ValueError(f"{what}; its rows must divide over {local} devices")
    return devices.spread(where._replace(mode="shard_map"), batch)
