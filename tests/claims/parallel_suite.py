"""pytest plugin: runs some suites in other processes and reports their results in the first.

`--in-parallel=mutants,saga` (`make verify`): another pytest runs these suites, one after another, while the first
runs all others. Many tests wait for a lease, a deadline or a browser, and others use the cores meanwhile. The option
can be given several times, for as many further processes. They start when the first has run the tests of `ALONE`. At
its end the first reports the results of the others. A test without a result, because another pytest crashed, runs in
the first.

The unit tests also measure the coverage of each service for the report. pytest-xdist cannot replace this plugin,
because each of its workers would start its own copy of the session's system.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.running_stack import IN_CONTAINERS

ALONE = (  # folders and files whose tests measure times and limits
    "chaos",
    "ha",
    "concurrency",
    "abuse/test_logins.py",
    "abuse/test_slow_clients.py",
)
# These start a second system. In containers, it would change the network of the first one while that is in use.
SECOND_SYSTEM = ("e2e/browser",)
SELECTED = "selected"  # the file with the names of all tests of the run
LANE = "lane"  # the start of the name of each thread that runs a lane
COVERS = "unit"  # the suite that measures coverage
COVERAGE = [sys.executable, "-m", "coverage"]
Results = dict[str, list[pytest.TestReport]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --in-parallel, and the option for the other processes."""
    text = f"run these in another process, after {', '.join(ALONE)} (repeatable)"
    parser.addoption("--in-parallel", action="append", metavar="FOLDER,…", help=text)
    parser.addoption("--results-to", type=Path, help="write each test's reports to this file, a line each")
    parser.addoption("--selected", type=Path, help="file with all tests of this run, a line each")


def pytest_configure(config: pytest.Config) -> None:
    """Register the part for the first or for another pytest, if this run is one of them."""
    if given := config.getoption("--in-parallel"):
        never = SECOND_SYSTEM if IN_CONTAINERS else ()
        lanes = [[suite for suite in suites.split(",") if suite not in never] for suites in given]
        config.pluginmanager.register(ParallelSuites(config, lanes), "parallel_suite")
    if path := config.getoption("--results-to"):
        config.pluginmanager.register(OtherRun(config, path), "other_run")


def list_selected(session: pytest.Session) -> set[str]:
    """Return the names of the tests that this run selects, in all its processes. A name has no parameters."""
    path = session.config.getoption("--selected")
    selected = path.read_text(encoding="utf-8").splitlines() if path else [item.nodeid for item in session.items]
    return {nodeid.partition("[")[0] for nodeid in selected}


def is_below(nodeid: str, *places: str) -> bool:
    """Return whether a test is in one of these folders and files, which are below the folder of all tests."""
    path = nodeid.partition("::")[0].partition("/")[2]
    return any(path == place or path.startswith(f"{place}/") for place in places)


class OtherRun:
    """Part of another pytest: writes its reports."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config, self._path = config, path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write one line."""
        content = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")


class Suite:
    """One suite in a process of its own."""

    def __init__(self, config: pytest.Config, suite: str, directory: Path) -> None:
        self._config, self._path = config, directory / suite.replace("/", "-")
        self._data = f"--data-file={directory}/coverage"
        self._is_covered = suite == COVERS
        covered = [*COVERAGE, "run", self._data, "--source=services"] if self._is_covered else [sys.executable]
        tests = f"{config.getini('testpaths')[0]}/{suite}"
        options = ["-m", config.getoption("markexpr"), "-p", "no:cacheprovider", "-q", f"--results-to={self._path}"]
        options.append(f"--selected={directory.with_name(SELECTED)}")
        self._command = [*covered, "-m", "pytest", tests, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> None:
        """Run the suite."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if self._is_stopped:
            self._process.terminate()
        self._process.wait()
        self._write_coverage(self._config.getoption("--report"))

    def stop(self) -> None:
        """Stop the process, also if another thread starts it just now."""
        self._is_stopped = True
        if self._process:
            self._process.terminate()

    def read_results(self) -> Results:
        """Return the reports of each test that has ended."""
        found: Results = {}
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # JSON made a list of this tuple
            found.setdefault(report.nodeid, []).append(report)
        return {test: reports for test, reports in found.items() if reports[-1].when == "teardown"}

    def _write_coverage(self, reports: Path | None) -> None:
        if reports and self._is_covered:
            command = [*COVERAGE, "json", "-q", self._data, "-o", str(reports / "coverage.json")]
            subprocess.run(command, capture_output=True, check=False)  # no data if that pytest crashed


class Lane:
    """Suites that run one after another in another process."""

    def __init__(self, config: pytest.Config, suites: list[str], directory: Path) -> None:
        directory.mkdir()
        self._suites = {suite: Suite(config, suite, directory) for suite in suites}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=LANE)
        self._runs: dict[str, Future[None]] = {}
        self._results: dict[str, Results] = {}

    def find_suite(self, nodeid: str) -> str:
        """Return the suite of this lane that has the test, or an empty text."""
        return next((suite for suite in self._suites if is_below(nodeid, suite)), "")

    def keep(self, selected: set[str]) -> None:
        """Forget the suites that are not selected."""
        self._suites = {suite: run for suite, run in self._suites.items() if suite in selected}

    def start(self) -> None:
        """Begin the first suite."""
        self._runs = {suite: self._pool.submit(run.run) for suite, run in self._suites.items()}

    def read_reports(self, nodeid: str) -> list[pytest.TestReport]:
        """Wait for the suite of this test, and return the reports of the test."""
        suite = self.find_suite(nodeid)
        if suite not in self._results:
            self._runs[suite].result()
            self._results[suite] = self._suites[suite].read_results()
        return self._results[suite].get(nodeid, [])

    def stop(self) -> None:
        """Stop the process and begin no further suite."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for suite in self._suites.values():
            suite.stop()
        self._pool.shutdown()


class ParallelSuites:
    """Part of the first pytest: runs the suites of each lane in another process, and reports their results."""

    def __init__(self, config: pytest.Config, lanes: list[list[str]]) -> None:
        self._directory = TemporaryDirectory(prefix="ticketremaster-parallel-")
        self._home = Path(self._directory.name)
        self._lanes = [Lane(config, suites, self._home / str(number)) for number, suites in enumerate(lanes)]
        self._order = [suite for suites in lanes for suite in suites]
        self._is_started = False

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        """Move the tests that run alone to the front, and the tests of the lanes to the end.

        If no others are selected, the first runs all itself.
        """
        yield
        selected = {self._find_suite(item.nodeid) for item in items}
        for lane in self._lanes:
            lane.keep(selected if "" in selected else set())
        suites = ["", *self._order]
        items.sort(key=lambda item: (suites.index(self._find_suite(item.nodeid)), not is_below(item.nodeid, *ALONE)))
        (self._home / SELECTED).write_text("\n".join(item.nodeid for item in items), encoding="utf-8")

    def runs(self, nodeid: str) -> bool:
        """Return whether another pytest runs this test."""
        return bool(self._find_suite(nodeid))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Begin the lanes after the tests that run alone. Report a test of a lane instead of running it."""
        if not self._is_started and not is_below(item.nodeid, *ALONE):
            self._is_started = True
            for lane in self._lanes:
                lane.start()
        # The first pytest runs a test for which another one has no report.
        reports = next((lane.read_reports(item.nodeid) for lane in self._lanes if lane.find_suite(item.nodeid)), [])
        if not reports:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item.session._setupstate.teardown_exact(nextitem)  # fixtures of a test before, if the next does not share them
        return True

    def pytest_unconfigure(self) -> None:
        """Stop the other processes with this run."""
        for lane in self._lanes:
            lane.stop()
        self._directory.cleanup()

    def _find_suite(self, nodeid: str) -> str:
        """Return the suite of a lane that has this test, or an empty text."""
        return next(filter(None, (lane.find_suite(nodeid) for lane in self._lanes)), "")
