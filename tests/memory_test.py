"""The host's memory is kept where glibc can be told to; elsewhere nothing breaks."""

import subprocess
import sys

import pytest

from subtune_jax import memory

FAULTS = """
import resource
import sys

import jax
import jax.numpy as jnp
from subtune_jax import memory

if sys.argv[1] == "keep":
    memory.keep()
step = jax.jit(lambda x: (jax.lax.optimization_barrier(x + 1)[::-1] * x).sum())
x = jnp.ones(20_000_000)
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_a_step_faults_in_its_memory_once():
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 0.1 * faults["leave"]


def test_another_system_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep() is False
