"""Eight simulated devices and a compilation cache, before anything imports jax."""

import os
from pathlib import Path

# Subprocesses and a second run of the tests compile nothing again.
CACHE = Path(__file__).parents[1] / ".cache" / "xla"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Most of a test's time is LLVM's; the operations of a program are the same.
    + " --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
