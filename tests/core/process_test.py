"""The host's memory is kept where glibc can be told to; elsewhere nothing breaks."""

import subprocess
import sys

import pytest

from subtune_jax.core import process

FAULTS = """
import ctypes
import resource
import sys

from subtune_jax.core import process

if sys.argv[1] == "keep":
    assert process.keep_memory()
libc, size = ctypes.CDLL(None), 64 * 2**20
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
libc.free.argtypes = (ctypes.c_void_p,)
counts = []
for _ in range(6):
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[-1] - counts[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_a_freed_block_is_not_faulted_in_again():
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
    assert process.keep_memory() is False
