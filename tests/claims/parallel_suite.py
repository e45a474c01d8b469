"""pytest plugin: runs one suite in a second process and reports its results in the first.

`--in-parallel=unit` (`make verify`): most end-to-end tests wait, and unit tests need one core. At the first end-to-end
test, a second pytest starts the unit tests. When the first run reaches them, it reports the results of the second in
its own order. A test without a result, because the second pytest crashed, runs in the first.

The second pytest also measures the coverage of each service for the report. pytest-xdist cannot replace this plugin,
because each of its workers would start its own copy of the session's system.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

WHILE = "e2e"  # the suite that leaves a core idle
COVERAGE = [sys.executable, "-m", "coverage"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --in-parallel, and the option for the second pytest."""
    parser.addoption("--in-parallel", metavar="SUITE", help=f"run SUITE in a second process while {WHILE} waits")
    parser.addoption("--results-to", type=Path, help="write each test's reports to this file, a line each")


def pytest_configure(config: pytest.Config) -> None:
    """Register the part for the first or the second pytest, if this run is one of them."""
    if suite := config.getoption("--in-parallel"):
        config.pluginmanager.register(ParallelSuite(suite), "parallel_suite")
    if path := config.getoption("--results-to"):
        config.pluginmanager.register(ResultWriter(config, path), "result_writer")


class ResultWriter:
    """Part of the second pytest: writes each test report to a file."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config, self._path = config, path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write one line."""
        content = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")


class ParallelSuite:
    """Part of the first pytest: starts the second, and reports its results."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._directory = TemporaryDirectory(prefix="ticketremaster-parallel-")
        self._path = Path(self._directory.name) / "results"
        self._data = f"--data-file={self._directory.name}/coverage"
        self._process: subprocess.Popen[bytes] | None = None
        self._reports: dict[str, list[pytest.TestReport]] | None = None

    def runs(self, nodeid: str) -> bool:
        """Return whether a test belongs to the suite."""
        return nodeid.split("/")[1] == self._suite

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Start the second pytest at the suite that waits. Report a test of its suite instead of running it."""
        if item.nodeid.split("/")[1] == WHILE and self._process is None:
            self._start()
        if self._process is None or not self.runs(item.nodeid):
            return None
        reports = self._read_results(item.config).get(item.nodeid)
        if not reports:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item.session._setupstate.teardown_exact(nextitem)  # fixtures of a test before, if the next does not share them
        return True

    def pytest_unconfigure(self) -> None:
        """Stop the second pytest with this run."""
        if self._process:
            self._process.terminate()
            self._process.wait()
        self._directory.cleanup()

    def _start(self) -> None:
        covered = [*COVERAGE, "run", self._data, "--source=services", "-m"]
        command = [*covered, "pytest", "-m", self._suite, "-p", "no:cacheprovider", "-q", f"--results-to={self._path}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def _read_results(self, config: pytest.Config) -> dict[str, list[pytest.TestReport]]:
        """Wait for the second pytest and return its reports by test."""
        if self._reports is None:
            assert self._process
            self._process.wait()
            self._write_coverage(config.getoption("--report"))
            self._reports = {}
            for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
                report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
                if isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # JSON made a list of this tuple
                self._reports.setdefault(report.nodeid, []).append(report)
            is_complete = {test: reports[-1].when == "teardown" for test, reports in self._reports.items()}
            self._reports = {test: reports for test, reports in self._reports.items() if is_complete[test]}
        return self._reports

    def _write_coverage(self, reports: Path | None) -> None:
        if reports:
            command = [*COVERAGE, "json", "-q", self._data, "-o", str(reports / "coverage.json")]
            subprocess.run(command, capture_output=True, check=False)  # no data if the second pytest crashed
