"""Timings by turns, and fresh processes."""

from unittest import mock

import pytest

from subtune_jax.study import timing


def test_turns_alternate_and_short_calls_fill_them():
    calls = []
    with mock.patch.object(timing, "TURN_SECONDS", 0.0):
        seconds = timing.by_turns(
            {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3
        )
    assert "".join(calls) == "aabb" + "ab" * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}


def test_a_failed_process_tells_its_last_words():
    with pytest.raises(RuntimeError, match="no_such_module"):
        timing.fresh("subtune_jax.no_such_module", {}, {})
