"""Memory of the host: keeping what XLA frees, so that it is not faulted in again."""

import ctypes
import sys

# Of <malloc.h>: (parameter, value). One heap, nothing by mmap, nothing given back.
TUNABLES = ((-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 2**30))


def keep() -> bool:
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
