"""pytest plugin: checks claims against tests, shows progress, and records the run.

`--report=DIR` (`make verify` uses `reports`) writes DIR/run.json and the page DIR/index.html at the end of a session,
also of one that fails. An unknown claim id aborts every run. A claim without a test aborts full runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report import claims, page
from harness.report.results import SUITES
from tests.claims import check
from tests.claims.progress import Progress
from tests.claims.record import RUN, Record, read_last_seconds
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
        config.pluginmanager.register(Progress(config, read_last_seconds(reports / RUN)), "progress")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the threads of the record."""
    if KEY in config.stash:
        config.stash[KEY].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check markers against claims before pytest deselects tests."""
    if session.testsfailed:
        return  # a module failed to import, and pytest reports it. Its claims are not known.
    for item in items:
        mark_cell(item)
    known = claims.read_claims()
    record = config.stash[KEY]
    record.carried = check.group_by_claim((item.nodeid, claims_of(item)) for item in items)
    record.controls = [item.nodeid for item in items if item.get_closest_marker("negative_control")]
    wrong = check.find_unknown(known, record.carried)
    record.is_full_run = is_full_run(config)
    if record.is_full_run:
        wrong += check.find_untested(known, record.carried)
    if wrong:
        raise pytest.UsageError("\n".join(wrong))


def claims_of(item: pytest.Item) -> Iterator[str]:
    """Yield the claims of a test, from markers on the test, its case or its module."""
    for marker in item.iter_markers("claim"):
        yield from marker.args


def mark_cell(item: pytest.Item) -> None:
    """Mark a cell of the fault matrix with the claim of its compensation row, so that `-m claim` selects it too."""
    if "::test_cell[" in item.nodeid:
        flow, faults = item.callspec.params["cell"]  # type: ignore[attr-defined]
        if rows := [row for edge, _ in faults for row in spec_rows.claims_of(flow, edge)]:
            item.add_marker(pytest.mark.claim(*rows))


def is_full_run(config: pytest.Config) -> bool:
    """Return whether the run covers all tests: no path, no exclusion, and not one suite alone."""
    left_out = any(config.getoption(name, None) for name in ("ignore", "ignore_glob", "deselect", "lf", "last_failed"))
    left_out |= config.getoption("markexpr") in SUITES
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not left_out


def pytest_collection_finish(session: pytest.Session) -> None:
    """Record the tests that are left after deselection."""
    session.config.stash[KEY].selected = [item.nodeid for item in session.items]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Record the requests of each test."""
    item.config.stash[KEY].begin(item.nodeid)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the record and the page."""
    if reports := report_directory(session.config):
        factory = getattr(session.config, "_tmp_path_factory", None)
        logs = sorted(factory.getbasetemp().rglob("logs/*.log")) if factory else []
        session.config.stash[KEY].write(reports / RUN, int(exitstatus), logs)
        page.write(reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the path of the page before pytest's own last line."""
    if reports := report_directory(config):
        terminalreporter.write_line(f"\nreport: {reports / 'index.html'}")


def report_directory(config: pytest.Config) -> Path | None:
    """Return the directory of the report, if this run writes one."""
    reports: Path | None = None if config.getoption("collectonly") else config.getoption("--report")
    return reports
