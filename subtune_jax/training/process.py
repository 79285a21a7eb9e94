"""What a process is set up with: kept memory, and compiled programs on disk."""

import ctypes
import os
import sys

import jax

from subtune_jax import fetch

# Of <malloc.h>: (parameter, value). One heap, nothing by mmap, nothing given back.
TUNABLES = ((-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**30))


def keep_memory() -> bool:
    """Tells glibc to keep freed memory; whether it could be told.

    XLA's CPU backend allocates the temporary buffer of a program at every call, and
    glibc gives blocks of that size back to the system at once: each step faults its
    pages in anew, which costs a step of EfficientNet-Lite0 about a third of its time.
    The process stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    return mallopt is not None and all(mallopt(*pair) == 1 for pair in TUNABLES)


def cache_compilations() -> None:
    """Keeps compiled programs on disk: a second start compiles nothing again."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(fetch.root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
