"""pytest plugin: runs some suites in a second process and reports their results in the first.

`--in-parallel=contract,unit` (`make verify`): the tests of `WAITS` leave a core idle, and each of these suites needs
one. At the first test that waits, a second pytest starts the first suite. When it ends, another starts the next suite.
While the first runs tests that need the whole machine, a lock stops the second before its next test. When the first
reaches a suite, it reports the results of the second in its own order. A test without a result, because the second
pytest crashed, runs in the first.

The unit tests also measure the coverage of each service for the report. pytest-xdist cannot replace this plugin,
because each of its workers would start its own copy of the session's system.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

WAITS = ("saga/crash", "saga/in_process", "saga/interleavings", "e2e")  # folders whose tests leave a core idle
GATE = "gate"
COVERS = "unit"  # the suite that measures coverage
COVERAGE = [sys.executable, "-m", "coverage"]
Results = dict[str, list[pytest.TestReport]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --in-parallel, and the option for the second pytest."""
    waits = ", ".join(WAITS)
    parser.addoption("--in-parallel", metavar="SUITE,…", help=f"run suites in a second process during {waits}")
    parser.addoption("--results-to", type=Path, help="write each test's reports to this file, a line each")


def pytest_configure(config: pytest.Config) -> None:
    """Register the part for the first or the second pytest, if this run is one of them."""
    if suites := config.getoption("--in-parallel"):
        config.pluginmanager.register(ParallelSuites(config, suites.split(",")), "parallel_suite")
    if path := config.getoption("--results-to"):
        config.pluginmanager.register(SecondRun(config, path), "second_run")


def list_folders(nodeid: str) -> list[str]:
    """Return the folders of a test below the folder of all tests, such as `["saga", "crash"]`."""
    return nodeid.partition("::")[0].split("/")[1:-1]


class Gate:
    """A lock that the first pytest holds while its tests need the whole machine."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def close(self) -> None:
        """Let the second pytest start no further test."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let the second pytest continue."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)


class SecondRun:
    """Part of the second pytest: waits at the gate before each test, and writes its reports to a file."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config, self._path, self._gate = config, path, Gate(path.with_name(GATE))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> None:
        """Wait while the first pytest needs the machine."""
        self._gate.close()  # waits until the first has opened it
        self._gate.open()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write one line."""
        content = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")


class Second:
    """One suite in a process of its own."""

    def __init__(self, config: pytest.Config, suite: str, directory: Path) -> None:
        self._config, self._path = config, directory / suite
        self._data = f"--data-file={directory}/coverage"
        self._is_covered = suite == COVERS
        covered = [*COVERAGE, "run", self._data, "--source=services"] if self._is_covered else [sys.executable]
        tests = f"{config.getini('testpaths')[0]}/{suite}"
        self._command = [*covered, "-m", "pytest", tests, "-p", "no:cacheprovider", "-q", f"--results-to={self._path}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._results: Results | None = None

    def start(self) -> None:
        """Start the process, if it has not been started."""
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def has_ended(self) -> bool:
        """Return whether the process was started and has ended."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Stop the process."""
        if self._process:
            self._process.terminate()
            self._process.wait()

    def read_results(self) -> Results:
        """Wait for the process and return the reports of each test."""
        if self._results is None:
            self.start()
            assert self._process
            self._process.wait()
            self._write_coverage(self._config.getoption("--report"))
            found: Results = {}
            for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
                if isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # JSON made a list of this tuple
                found.setdefault(report.nodeid, []).append(report)
            self._results = {test: reports for test, reports in found.items() if reports[-1].when == "teardown"}
        return self._results

    def _write_coverage(self, reports: Path | None) -> None:
        if reports and self._is_covered:
            command = [*COVERAGE, "json", "-q", self._data, "-o", str(reports / "coverage.json")]
            subprocess.run(command, capture_output=True, check=False)  # no data if the second pytest crashed


class ParallelSuites:
    """Part of the first pytest: starts the suites one after another, and reports their results."""

    def __init__(self, config: pytest.Config, suites: list[str]) -> None:
        self._directory = TemporaryDirectory(prefix="ticketremaster-parallel-")
        directory = Path(self._directory.name)
        self._gate = Gate(directory / GATE)
        self._seconds = {suite: Second(config, suite, directory) for suite in suites}
        self._has_begun = False

    def runs(self, nodeid: str) -> bool:
        """Return whether a test belongs to one of the suites."""
        return list_folders(nodeid)[0] in self._seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Start a suite at a test that waits. Report a test of these suites instead of running it."""
        self._share_machine(item.nodeid)
        if not self._has_begun or not self.runs(item.nodeid):
            return None
        reports = self._seconds[list_folders(item.nodeid)[0]].read_results().get(item.nodeid)
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
        for second in self._seconds.values():
            second.stop()
        self._directory.cleanup()

    def _share_machine(self, nodeid: str) -> None:
        """Start the next suite if this test waits. Close the gate if this test needs the machine."""
        waits = "/".join(list_folders(nodeid)).startswith(WAITS)
        if waits:
            self._has_begun = True
            if suite := next((second for second in self._seconds.values() if not second.has_ended()), None):
                suite.start()
        if waits or self.runs(nodeid):
            self._gate.open()
        else:
            self._gate.close()
