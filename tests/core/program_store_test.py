"""The program store: one program a form, and the operations of all calls."""

import jax
import jax.numpy as jnp
import numpy as np

from subtune_jax.core import devices, program_store
from subtune_jax.training import block_programs


def on(count):
    return devices.choose("shard_map", jax.devices()[:count])


def product(a, b):
    return a @ b


def test_a_form_is_compiled_once_and_every_call_is_counted():
    store = program_store.make(on(1))
    square, wide = jnp.ones((4, 4)), jnp.ones((4, 8))
    for arguments in ((square, square), (square, square), (square, wide)):
        found = block_programs.call(store, ("product",), product, *arguments)
        np.testing.assert_array_equal(found, product(*arguments))
    assert len(store.compiled) == 2
    assert store.spent["flops"] == 2 * (2 * 4**3) + 2 * 4 * 4 * 8


def test_stores_may_count_together():
    first = program_store.make(on(1))
    second = program_store.make(on(1), first.spent)
    a = jnp.ones((4, 4))
    for store in (first, second):
        block_programs.call(store, ("product",), product, a, a)
    assert first.spent["flops"] == 4 * 4**3
    assert len(first.compiled) == len(second.compiled) == 1


def test_a_split_program_counts_for_all_devices_and_is_one_a_shape_of_rows():
    where = on(4)
    store = program_store.make(where)
    function = devices.parallel(
        where, lambda state, fixed, rows: (state, rows @ fixed), rows_out=True
    )
    fixed = devices.replicate(where, np.ones((3, 5), np.float32))
    state = devices.replicate(where, np.zeros(1, np.float32))
    for rows in (8, 8, 16):
        piece = devices.spread(where, np.ones((rows, 3), np.float32))
        given = ("rows",), function, state, fixed, piece
        _, output = program_store.call_split(store, *given)
        np.testing.assert_array_equal(output, np.full((rows, 5), 3.0))
    assert len(store.compiled) == 2
    assert store.spent["flops"] == 2 * 3 * 5 * (8 + 8 + 16)
