"""Holds claims and tests to one another, tells what is left of a run, and writes down what came of it.

`--report` (given by `make verify`) writes reports/run.json and the page reports/index.html when the session ends,
however it ends. A marker that names no claim stops any run; a claim that no test carries stops a run over all tests.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from harness.report import claims, page
from tests.claims import cells, check
from tests.claims.progress import Progress
from tests.claims.record import Record

KEY = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --report."""
    parser.addoption("--report", action="store_true", help="write reports/index.html when the session ends")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and begin the record."""
    config.addinivalue_line("markers", "claim(*ids): the claims of tests/claims/claims.toml that this test proves")
    config.stash[KEY] = Record(config)
    if config.getoption("--report"):
        config.pluginmanager.register(Progress(config, Record.last_seconds()), "progress")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before anything is deselected: every marker names a claim, and in a run over all tests every claim is carried."""
    if session.testsfailed:
        return  # a module could not be imported: pytest tells so, and what it carries is not known
    known = claims.by_id()
    record = config.stash[KEY]
    record.carried = check.carried((item.nodeid, claims_of(item)) for item in items)
    wrong = check.unknown(known, record.carried)
    if is_whole(config):
        wrong += check.untested(known, record.carried)
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


def claims_of(item: pytest.Item) -> Iterator[str]:
    """The claims that a test carries: by markers on itself, its case or its module; a cell by its edge as well."""
    for marker in item.iter_markers("claim"):
        yield from marker.args
    if "::test_cell[" in item.nodeid:
        flow, faults = item.callspec.params["cell"]  # type: ignore[attr-defined]
        for edge, _ in faults:
            yield from cells.claims_of(flow, edge)


def is_whole(config: pytest.Config) -> bool:
    """Whether everything under tests/ was collected: no path, and nothing left out."""
    left_out = any(config.getoption(name, None) for name in ("ignore", "ignore_glob", "deselect", "lf", "last_failed"))
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not left_out


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is left after deselection is what this run is about."""
    session.config.stash[KEY].selected = [item.nodeid for item in session.items]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Know which requests belong to which test."""
    item.config.stash[KEY].begin()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what came of each phase."""
    report = yield
    item.config.stash[KEY].add(report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the run down and draw the page."""
    if session.config.getoption("--report") and not session.config.getoption("collectonly"):
        factory = getattr(session.config, "_tmp_path_factory", None)
        session.config.stash[KEY].write(int(exitstatus), factory.getbasetemp() if factory else Path("/nonexistent"))
        page.write()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the page is; pytest's own line still comes last."""
    if config.getoption("--report") and not config.getoption("collectonly"):
        terminalreporter.write_line(f"\nreport: {page.PAGE}")
