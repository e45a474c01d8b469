"""Prints how much of a long run is left."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

EVERY_SECONDS = 20.0
USUAL = {"mutants": 1.5, "saga": 0.22, "e2e": 0.3, "contract": 1.0, "concurrency": 4.0, "abuse": 3.0, "unit": 0.05}
"""Seconds a test, by suite, until a run on this machine has recorded the real times."""


class Progress:
    """Prints tests done, time elapsed and estimated time left, between two files and at most every 20 s."""

    def __init__(self, config: pytest.Config, last: Mapping[str, float]) -> None:
        self._config, self._last = config, last
        self._began = self._printed = time.monotonic()
        self._left: dict[str, float] = {}
        self._expected = self._done = 0.0
        self._count, self._file = 0, ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Estimate each test by its last run."""
        self._began = self._printed = time.monotonic()
        parallel = self._config.pluginmanager.getplugin("parallel_suite")
        here = [item.nodeid for item in session.items if parallel is None or not parallel.runs(item.nodeid)]
        self._left = dict.fromkeys((item.nodeid for item in session.items), 0.0)
        self._left |= {test: self._last.get(test, _usual(test)) for test in here}
        self._expected = sum(self._left.values())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Print before the name of the next file."""
        file, _, _ = nodeid.partition("::")
        now = time.monotonic()
        if file != self._file and now - self._printed > EVERY_SECONDS:
            self._printed = now
            self._print(now - self._began)
        self._file = file

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Count a finished test."""
        self._count += 1
        self._done += self._left.get(nodeid, 0.0)

    def _print(self, elapsed: float) -> None:
        pace = elapsed / self._done if self._done else 1.0
        left = (self._expected - self._done) * min(max(pace, 0.5), 2.0)
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            text = f"  {self._count} of {len(self._left)} tests in {_minutes(elapsed)}, about {_minutes(left)} left"
            reporter.write_line(text, cyan=True)
            reporter.currentfspath = None


def _usual(nodeid: str) -> float:
    return USUAL.get(nodeid.split("/")[1], 0.1)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
