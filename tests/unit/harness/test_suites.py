"""With -m SUITE alone pytest reads that suite's folders only, so every test must carry its folder's mark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.report import results
from harness.runtime.compose import ROOT
from tests import conftest
from tests.claims import plugin

pytestmark = pytest.mark.unit

ANYWHERE = pytest.Config.ArgsSource.TESTPATHS
NAMED = pytest.Config.ArgsSource.ARGS
TESTS = ROOT / "tests"


def config(marks: str, source: pytest.Config.ArgsSource = ANYWHERE) -> Any:
    """Return a config with this command line."""
    options = {"markexpr": marks}
    return SimpleNamespace(getoption=options.get, args_source=source, rootpath=ROOT)


@pytest.mark.parametrize(
    ("marks", "folder", "source", "ignored"),
    [
        ("e2e", "unit", ANYWHERE, True),
        ("e2e", "e2e", ANYWHERE, False),
        ("saga", "mutants", ANYWHERE, False),
        ("e2e", "unit", NAMED, False),
        ("unit or e2e", "saga", ANYWHERE, False),
        ("", "e2e", ANYWHERE, False),
    ],
)
def test_one_suite_reads_its_own_folders_and_is_no_full_run(
    marks: str, folder: str, source: pytest.Config.ArgsSource, ignored: bool
) -> None:
    given = config(marks, source)
    assert bool(conftest.pytest_ignore_collect(TESTS / folder, given)) == ignored
    assert plugin.is_full_run(given) == (source is ANYWHERE and marks != "e2e" and marks != "saga")


def test_the_report_lists_every_suite() -> None:
    """A suite that its list lacks would count as a full run, which must carry every claim."""
    assert set(results.SUITES) == conftest.SUITES.keys()
    assert not any(plugin.is_full_run(config(suite)) for suite in conftest.SUITES)


def test_no_suite_ignores_its_own_files() -> None:
    folders = {folder for own in conftest.SUITES.values() for folder in own}
    assert {path.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")} == folders
    assert not conftest.pytest_ignore_collect(TESTS / "e2e" / "test_gate.py", config("unit"))


def test_tests_without_a_running_system_come_first_in_each_suite() -> None:
    def item(nodeid: str, *fixtures: str) -> Any:
        return SimpleNamespace(nodeid=nodeid, fixturenames=fixtures, iter_markers=lambda _name: [1])

    whole = item("tests/contract/test_a.py::test_needs", "stack"), item("tests/contract/test_a.py::test_reads")
    items = [*whole, item("tests/e2e/test_b.py::test_needs", "stack"), item("tests/e2e/test_c.py::test_tries", "bare")]
    conftest.pytest_collection_modifyitems(items)
    assert [i.nodeid.rpartition("::")[2] for i in items] == ["test_tries", "test_needs", "test_reads", "test_needs"]
    assert [i.nodeid.split("/")[1] for i in items] == ["e2e", "e2e", "contract", "contract"]


@pytest.mark.parametrize(("mark", "stops"), [("e2e", False), ("unit", True), (None, True)])
def test_missing_mark_of_a_folder_stops_the_run(mark: str | None, stops: bool) -> None:
    def iter_markers(name: str) -> list[str]:
        return [name] if name == mark else []

    item: Any = SimpleNamespace(nodeid="tests/e2e/test_x.py::test_x", iter_markers=iter_markers)
    if not stops:
        conftest.pytest_collection_modifyitems([item])
        return
    with pytest.raises(pytest.UsageError, match="without its folder's mark: tests/e2e/test_x"):
        conftest.pytest_collection_modifyitems([item])
