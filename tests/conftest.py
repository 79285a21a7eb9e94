"""Eight simulated devices, a compilation cache, the slow tests and the budget."""

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

import cpu_budget  # noqa: E402  # imports jax
import hypothesis  # noqa: E402
import pytest  # noqa: E402
import slow_tests  # noqa: E402

# How long one example takes says more of what else the machine does.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser):
    parser.addoption(
        "--slow-third",
        metavar="HASH",
        help="also a third of the slow tests, chosen by this commit's hash",
    )


def pytest_configure(config):
    if config.getoption("--slow-third"):
        config.option.markexpr = ""  # instead of the default, `not slow`
    config.pluginmanager.register(cpu_budget.Budget(), "cpu_budget")


@pytest.hookimpl(tryfirst=True)  # before pytest reads the marks
def pytest_collection_modifyitems(config, items):
    slow_tests.mark(config, items)
    commit = config.getoption("--slow-third")
    if commit:
        slow_tests.keep_a_third(config, items, commit)
