"""Devices: one per-device function, run by pmap or shard_map over one axis.

The function has the form `(state, fixed, piece) -> (state, output)`. `state` and
`fixed` are the same on every device; rows of `piece` are split over all devices of
all processes. Nothing is reduced by the compiler: what crosses devices is what the
function itself reduces over the axis `AXIS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from subtune_jax.core.registry import near

AXIS = "data"
MODES = ("auto", "pmap", "shard_map")


class Devices(NamedTuple):
    """The devices of a run and how they are driven.

    Attributes:
      mode: `pmap` or `shard_map`.
      mesh: all devices of all processes, one axis.
      size: how many they are.
    """

    mode: str
    mesh: Mesh
    size: int


def choose(parallel: str = "auto", devices: list[Any] | None = None) -> Devices:
    """All devices (or the given ones); `auto` is pmap where there are several.

    Raises:
      ValueError: `parallel` is not one of `MODES`.
    """
    if parallel not in MODES:
        raise ValueError(f"no parallel named {parallel!r}; {near(parallel, MODES)}")
    found = jax.devices() if devices is None else devices
    if parallel == "auto":
        parallel = "pmap" if len(found) > 1 else "shard_map"
    mesh = Mesh(np.asarray(found), (AXIS,), axis_types=(AxisType.Auto,))
    return Devices(parallel, mesh, mesh.size)


def replicate(devices: Devices, tree: Any) -> Any:
    """`tree` on every device; every process must hold the same one.

    Always a copy: the result may be donated, the argument never is.
    """
    everywhere = NamedSharding(devices.mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(
            everywhere, np.array(leaf), np.shape(leaf)
        ),
        tree,
    )


def spread(devices: Devices, piece: Any) -> Any:
    """This process's rows of a piece, laid out for its devices."""
    rows = NamedSharding(devices.mesh, PartitionSpec(AXIS))
    local = devices.mesh.local_mesh.size

    def place(leaf: np.ndarray) -> jax.Array:
        if devices.mode == "pmap":  # a leading axis of devices
            leaf = leaf.reshape(local, -1, *leaf.shape[1:])
        return jax.make_array_from_process_local_data(rows, leaf)

    return jax.tree.map(place, piece)


def parallel(
    devices: Devices,
    function: Callable[..., Any],
    *,
    rows_out: bool = False,
    donate: bool = False,
) -> Any:
    """The compiled form of `(state, fixed, piece) -> (state, output)`.

    Args:
      devices: where it runs.
      function: the per-device function.
      rows_out: `output` has rows, and the devices' rows are put together as they
        were split; otherwise it must be the same on every device.
      donate: the buffers of `state` are given away.
    """
    donated = (0,) if donate else ()
    if devices.mode == "pmap":
        # None on the way out returns one array, known to be the same everywhere.
        return jax.pmap(
            function,
            axis_name=AXIS,
            devices=list(devices.mesh.devices.flat),
            in_axes=(None, None, 0),
            out_axes=(None, 0 if rows_out else None),
            donate_argnums=donated,
        )
    # check_vma would reduce the gradient of every replicated array by itself,
    # before its selected values are gathered: all of it would cross the network.
    mapped = jax.shard_map(
        function,
        mesh=devices.mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=(
            PartitionSpec(),
            PartitionSpec(AXIS) if rows_out else PartitionSpec(),
        ),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=donated)


def rows_to_host(devices: Devices, output: jax.Array) -> np.ndarray:
    """All rows of all devices, `[rows, ...]`, on every process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        whole = multihost_utils.process_allgather(output, tiled=True)
    else:
        whole = output
    rows = np.asarray(whole)
    return rows.reshape(-1, *rows.shape[2:]) if devices.mode == "pmap" else rows


def to_host(tree: Any) -> Any:
    """Replicated arrays as NumPy arrays, on every process."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)
