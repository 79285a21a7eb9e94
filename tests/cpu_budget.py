"""What each plug-in's promises cost, in CPU seconds; too much fails the session.

A promise is a test that runs over all plug-ins of a wing: it takes `method`, `task`,
`backbone`, `network` or, in the wing's own folder of tests, `name`. Its time is that
of the method, else of the task, else of the network.
"""

import os
from collections import defaultdict

import pytest

from subtune_jax.core import registry

SECONDS = 5.0  # of one plug-in, without its slow tests; on today's machines
KINDS = {
    "methods": ("method",),
    "tasks": ("task",),
    "backbones": ("backbone", "network", "evidence"),
}
PLUGINS = {wing: set(registry.plugins(wing)) for wing in KINDS}


def plugin(item):
    """`wing/name` of the plug-in whose promise `item` is, or None."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    folder = item.path.parent.name
    for wing, arguments in KINDS.items():
        own = (*arguments, "name") if folder == wing else arguments
        for argument in own:
            value = parameters.get(argument)
            if isinstance(value, str) and value in PLUGINS[wing]:
                return f"{wing}/{value}"
    return None


def used():
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


class Budget:
    """A plug-in of pytest; with workers, they measure and the first process adds up."""

    def __init__(self):
        self.start = used()
        self.seconds = defaultdict(float)  # of each plug-in
        self.tests = defaultdict(lambda: defaultdict(float))  # its node ids -> seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        now = used()
        report.cpu_seconds, self.start = now - self.start, now
        report.plugin = None if item.get_closest_marker("slow") else plugin(item)
        return report

    def pytest_runtest_logreport(self, report):
        if getattr(report, "plugin", None):
            self.seconds[report.plugin] += report.cpu_seconds
            self.tests[report.plugin][report.nodeid] += report.cpu_seconds

    def over(self):
        """The plug-ins over the limit, dearest first, with their seconds."""
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        return [row for row in rows if row[1] > SECONDS]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.over() and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Lines above pytest's own closing line."""
        for name, seconds in self.over():
            tests = self.tests[name]
            dearest = max(tests, key=tests.__getitem__)
            line = f"{name}: its promises took {seconds:.1f} CPU seconds of {SECONDS:g}"
            line += f"; the dearest is {dearest}, {tests[dearest]:.1f}"
            terminalreporter.write_line(f"{line}; make it cheaper, or slow")
