"""Holds claims and tests to one another, tells what is left of a run, and writes down what came of it.

`--report=DIR` (`make verify` gives reports) writes DIR/run.json and the page DIR/index.html when the session ends,
however it ends. A marker that names no claim stops any run; a claim that no test carries stops a run over all tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report import claims, page
from harness.report.results import SUITES
from tests.claims import check
from tests.claims.progress import Progress
from tests.claims.record import RUN, Record, last_seconds
from tests.saga.matrix import spec_rows

KEY = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --report."""
    parser.addoption("--report", type=Path, metavar="DIR", help="write DIR/index.html when the session ends")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and begin the record."""
    config.addinivalue_line("markers", "claim(*ids): the claims of tests/claims/claims.toml that this test proves")
    config.stash[KEY] = Record(config)
    config.pluginmanager.register(config.stash[KEY], "record")
    if reports := config.getoption("--report"):
        config.pluginmanager.register(Progress(config, last_seconds(reports / RUN)), "progress")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    if KEY in config.stash:
        config.stash[KEY].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before anything is deselected: every marker names a claim, and in a run over all tests every claim is carried."""
    if session.testsfailed:
        return  # a module could not be imported: pytest tells so, and what it carries is not known
    for item in items:
        mark_cell(item)
    known = claims.by_id()
    record = config.stash[KEY]
    record.carried = check.carried((item.nodeid, claims_of(item)) for item in items)
    record.controls = [item.nodeid for item in items if item.get_closest_marker("negative_control")]
    wrong = check.unknown(known, record.carried)
    record.whole = is_whole(config)
    if record.whole:
        wrong += check.untested(known, record.carried)
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


def claims_of(item: pytest.Item) -> Iterator[str]:
    """The claims that a test carries, by markers on itself, its case or its module."""
    for marker in item.iter_markers("claim"):
        yield from marker.args


def mark_cell(item: pytest.Item) -> None:
    """A cell of the fault matrix carries the row of the reference that it is, so that `-m claim` selects it too."""
    if "::test_cell[" in item.nodeid:
        flow, faults = item.callspec.params["cell"]  # type: ignore[attr-defined]
        if rows := [row for edge, _ in faults for row in spec_rows.claims_of(flow, edge)]:
            item.add_marker(pytest.mark.claim(*rows))


def is_whole(config: pytest.Config) -> bool:
    """Whether everything under tests/ was collected: no path, nothing left out, and no suite alone."""
    left_out = any(config.getoption(name, None) for name in ("ignore", "ignore_glob", "deselect", "lf", "last_failed"))
    left_out |= config.getoption("markexpr") in SUITES
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not left_out


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is left after deselection is what this run is about."""
    session.config.stash[KEY].selected = [item.nodeid for item in session.items]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Know which requests belong to which test."""
    item.config.stash[KEY].begin(item.nodeid)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the run down and draw the page."""
    if reports := wanted(session.config):
        factory = getattr(session.config, "_tmp_path_factory", None)
        logs = sorted(factory.getbasetemp().rglob("logs/*.log")) if factory else []
        session.config.stash[KEY].write(reports / RUN, int(exitstatus), logs)
        page.write(reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the page is; pytest's own line still comes last."""
    if reports := wanted(config):
        terminalreporter.write_line(f"\nreport: {reports / 'index.html'}")


def wanted(config: pytest.Config) -> Path | None:
    """Where the report is to go, if anywhere."""
    reports: Path | None = None if config.getoption("collectonly") else config.getoption("--report")
    return reports
