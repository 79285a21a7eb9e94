"""What each plug-in's promises cost, in CPU seconds.

Above the limit is said at the end; three times the limit fails the session: the same
tests took twice as long on some days, when a machine was shared.

A promise is a test that runs over all plug-ins of a wing, in one of the files below: it
takes `method`, `task`, `backbone`, `network`, `evidence` (of a network) or `name`.
A method's time is that on the fastest network; on others it is the network's, and so
is what is set up for all methods. Slow tests do not count.
"""

import os
from collections import defaultdict

import jax
import pytest

from subtune_jax.core import registry

# Of one plug-in, in the default run, on today's machines. To compile the smallest form
# of a network, forwards alone, takes four to six of them.
SECONDS = {"methods": 5.0, "tasks": 5.0, "backbones": 10.0}
FAILING = 3  # times the limit
FAST = "mlp"  # the network whose programs compile fastest
FILES = (
    *("methods/methods_test.py", "methods/plugins_test.py"),
    *("tasks/tasks_test.py", "tasks/assets_test.py"),
    *("backbones/backbones_test.py", "training/immobility_test.py"),
)
KINDS = {
    "methods": ("method",),
    "tasks": ("task",),
    "backbones": ("backbone", "network", "evidence"),
}
PLUGINS = {wing: set(registry.plugins(wing)) for wing in KINDS}


def named(item, wing):
    """The plug-in of `wing` that is a parameter of `item`, or None."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    own = ("name",) if item.path.parent.name == wing else ()
    values = [parameters.get(argument) for argument in (*KINDS[wing], *own)]
    return next((v for v in values if isinstance(v, str) and v in PLUGINS[wing]), None)


def payer(item, when):
    """`wing/name` of the plug-in whose promise `item` is in this phase, or None."""
    if f"{item.path.parent.name}/{item.path.name}" not in FILES:
        return None
    network, method = named(item, "backbones"), named(item, "methods")
    if network and (when == "setup" or network != FAST or method is None):
        return f"backbones/{network}"
    task = named(item, "tasks")
    if method:
        return f"methods/{method}"
    return None if task is None else f"tasks/{task}"


def limit(name):
    """CPU seconds that the promises of `wing/name` may take."""
    return SECONDS[name.partition("/")[0]]


def used():
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


class Budget:
    """A plug-in of pytest; with workers, they measure and the first process adds up."""

    def __init__(self):
        self.start = 0.0  # of this phase
        self.seconds = defaultdict(float)  # of each plug-in
        self.tests = defaultdict(lambda: defaultdict(float))  # its node ids -> seconds

    def pytest_collection_finish(self):
        jax.jit(lambda x: x + 1)(1.0)  # starting jax is no plug-in's cost

    def pytest_runtest_logstart(self):
        self.start = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        now = used()
        report.cpu_seconds, self.start = now - self.start, now
        report.plugin = (
            None if item.get_closest_marker("slow") else payer(item, call.when)
        )
        return report

    def pytest_runtest_logreport(self, report):
        if getattr(report, "plugin", None):
            self.seconds[report.plugin] += report.cpu_seconds
            self.tests[report.plugin][report.nodeid] += report.cpu_seconds

    def over(self):
        """The plug-ins over the limit, dearest first, with their seconds."""
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        return [row for row in rows if row[1] > limit(row[0])]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        failing = [
            name for name, seconds in self.over() if seconds > FAILING * limit(name)
        ]
        if failing and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Lines above pytest's own closing line."""
        for name, seconds in self.over():
            tests = self.tests[name]
            dearest = max(tests, key=tests.__getitem__)
            line = f"{name}: its promises took {seconds:.1f} of {limit(name):g} CPU"
            line += f" seconds; the dearest is {dearest}, {tests[dearest]:.1f}"
            terminalreporter.write_line(f"{line}; make it cheaper, or slow")
