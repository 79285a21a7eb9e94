"""The tests' own budget: what is too dear fails, what is slow has its turn."""

from pathlib import Path
from types import SimpleNamespace

import cpu_budget
import pytest
import slow_tests


class Item(SimpleNamespace):
    """A collected test, as far as the budget looks at one."""

    def __init__(self, nodeid, **parameters):
        path = Path(nodeid.partition("::")[0])
        callspec = SimpleNamespace(params=parameters)
        super().__init__(nodeid=nodeid, path=path, callspec=callspec, marks=[])

    __hash__ = object.__hash__

    def add_marker(self, mark):
        self.marks.append(mark.name)

    def get_closest_marker(self, name):
        return name if name in self.marks else None


def config(*arguments):
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    return SimpleNamespace(args=arguments, hook=hook)


def report(seconds, plugin="methods/gps"):
    return SimpleNamespace(nodeid="a", cpu_seconds=seconds, plugin=plugin)


@pytest.mark.parametrize(
    "parts, said, fails",
    [((3.0, 1.9), 0, False), ((9.0, 5.9), 1, False), ((9.0, 6.1), 1, True)],
    ids=["within", "over", "over by far"],
)
def test_a_session_fails_where_a_plug_in_is_over_its_budget(parts, said, fails):
    budget, session = cpu_budget.Budget(), SimpleNamespace(exitstatus=0)
    for seconds in parts:
        budget.pytest_runtest_logreport(report(seconds))
        budget.pytest_runtest_logreport(report(9.0, plugin=None))
    budget.pytest_sessionfinish(session)
    assert len(budget.over()) == said
    assert session.exitstatus == (1 if fails else 0)


GPS = {"method": "gps"}


@pytest.mark.parametrize(
    "nodeid, parameters, name",
    [
        ("tests/methods/methods_test.py::b", GPS, "methods/gps"),
        ("tests/methods/methods_test.py::b", GPS | {"evidence": "mlp"}, "methods/gps"),
        (
            "tests/methods/methods_test.py::b",
            GPS | {"evidence": "vit"},
            "backbones/vit",
        ),
        ("tests/training/immobility_test.py::b", {"network": "vit"}, "backbones/vit"),
        ("tests/tasks/tasks_test.py::b", {"name": "elpv"}, "tasks/elpv"),
        ("tests/report/a_test.py::b", {"name": "elpv"}, None),
        ("tests/methods/gps_test.py::b", GPS, None),
        ("tests/methods/methods_test.py::b", {"method": 3}, None),
    ],
)
def test_a_promise_is_told_from_its_parameters(nodeid, parameters, name):
    assert cpu_budget.payer(Item(nodeid, **parameters), "call") == name


def test_what_is_set_up_for_all_methods_is_the_networks():
    item = Item("tests/methods/methods_test.py::b", method="gps", evidence="mlp")
    assert cpu_budget.payer(item, "setup") == "backbones/mlp"


def test_three_commits_run_each_slow_test_once_and_the_others_always():
    items = [Item(f"tests/a_test.py::b[{number}]") for number in range(20)]
    for item in items[5:]:
        item.marks.append("slow")
    ran = []
    for commit in ("a0", "a1", "a2"):
        kept = list(items)
        slow_tests.keep_a_third(config(), kept, commit)
        assert kept[:5] == items[:5] and len(kept) == 10
        ran += kept[5:]
    assert sorted(ran, key=items.index) == items[5:]


def test_every_method_is_tried_by_default_and_every_network():
    methods, networks = (cpu_budget.PLUGINS[wing] for wing in ("methods", "backbones"))
    items = [
        Item("tests/methods/a_test.py::b", method=method, evidence=network)
        for method in methods
        for network in networks
    ]
    slow_tests.mark(config("tests/methods/a_test.py::b"), items)
    fast = [item.callspec.params for item in items if not item.marks]
    assert {each["method"] for each in fast} == methods
    assert {each["evidence"] for each in fast} == networks


def test_a_pattern_that_names_no_test_is_an_error(monkeypatch):
    monkeypatch.setattr(slow_tests, "SLOW", ("a_test.py::gone*",))
    items = [Item("tests/a_test.py::here")]
    slow_tests.mark(config("tests/a_test.py::here"), items)  # not the whole file
    with pytest.raises(pytest.UsageError, match="no test is a_test.py::gone"):
        slow_tests.mark(config("tests"), items)
