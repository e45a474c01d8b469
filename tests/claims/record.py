"""What came of a run: every test with its outcome, and of every failure what it takes to understand it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import api_client, invariant_counter
from harness.dev.git import git
from harness.report import trace
from tests.claims.check import Carried
from tests.claims.memory import Memory

REPLAY = ".venv/bin/python -m pytest"
RUN = "run.json"
TEXT = 12_000  # characters of a failure that the page shows, from its end
REQUESTS = 6  # of a failed test, the last ones are shown with their log lines
LINES = 80  # of each


class Record:
    """Collects outcomes as they come."""

    def __init__(self, config: pytest.Config) -> None:
        self.carried: Carried = {}
        self.controls: list[str] = []
        self.selected: list[str] = []
        self.whole = False
        self._config, self._began = config, time.time()
        self._outcomes: dict[str, tuple[str, float]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._tally = invariant_counter.InvariantCounter() if config.getoption("--report") else None
        self._memory = Memory() if config.getoption("--report") else None

    def begin(self, test: str) -> None:
        """The next test begins: what was asked before it is not its."""
        api_client.RECENT_REQUESTS.clear()
        if self._memory:
            self._memory.begin(test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test: the worst outcome counts, the times add up."""
        before, seconds = self._outcomes.get(report.nodeid, ("passed", 0.0))
        outcome = before if before == "failed" or report.outcome == "passed" else report.outcome
        self._outcomes[report.nodeid] = (outcome, seconds + report.duration)
        if report.failed and report.nodeid not in self._failures:
            heard = list(api_client.RECENT_REQUESTS)[-REQUESTS:]
            text = "\n".join([report.longreprtext, *(f"── {title}\n{content}" for title, content in report.sections)])
            self._failures[report.nodeid] = {"when": report.when, "text": text[-TEXT:], "heard": heard}

    def close(self) -> None:
        """Nothing is counted any more."""
        if self._tally:
            self._tally.close()
        if self._memory:
            self._memory.close()

    def write(self, path: Path, exitstatus: int, logs: Sequence[Path]) -> None:
        """Write it down; `logs` are those of the stacks of this session."""
        known = {test: (outcome, round(seconds, 3)) for test, (outcome, seconds) in self._outcomes.items()}
        found = {
            "began": datetime.fromtimestamp(self._began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._began, 1),
            "exit": exitstatus,
            "command": shlex.join(["pytest", *self._config.invocation_params.args]),
            "commit": (git("describe", "--always", "--dirty", "--abbrev=10") or "").strip(),
            "whole": self.whole,
            "machine": machine(),
            "selected": len(self.selected),
            "not_run": [test for test in self.selected if test not in known],
            "tests": known,
            "claims": self.carried,
            "controls": self.controls,
            "failures": self._explained(logs),
            "invariants": self._tally.counted() if self._tally else {},
            "memory": self._memory.seen if self._memory else None,
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, ensure_ascii=False))

    def _explained(self, logs: Sequence[Path]) -> list[dict[str, Any]]:
        wanted = {request[0] for failure in self._failures.values() for request in failure["heard"]}
        lines = trace.find(logs, wanted.__contains__) if wanted else {}
        return [_explained(test, failure, lines) for test, failure in self._failures.items()]


def last_seconds(path: Path) -> dict[str, float]:
    """How long each test of an earlier run took, in seconds; nothing when there was none."""
    try:
        return {test: seconds for test, (_, seconds) in json.loads(path.read_text())["tests"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def _explained(test: str, failure: Mapping[str, Any], lines: Mapping[str, list[trace.Line]]) -> dict[str, Any]:
    requests = [
        {"id": correlation_id, "asked": asked, "lines": trace.told(lines.get(correlation_id, [])[:LINES])}
        for correlation_id, asked in failure["heard"]
    ]
    replay = f"{REPLAY} {shlex.quote(test)}"
    return {"test": test, "when": failure["when"], "replay": replay, "text": failure["text"], "requests": requests}


def machine() -> dict[str, str]:
    """What the figures of this run are to be seen against."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
