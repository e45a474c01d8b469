"""Records a run: every test with its outcome, and every failure with its text, requests and log lines."""

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
from harness.dev.git import run_git
from harness.report import trace
from tests.claims.check import Carried
from tests.claims.memory import MemoryMonitor

REPLAY = ".venv/bin/python -m pytest"
RUN = "run.json"
TEXT = 12_000  # the last characters of a failure, which the page shows
REQUESTS = 6  # the last requests of a failed test, shown with their log lines
LINES = 80  # log lines of each request


class Record:
    """Collects the outcomes of a session."""

    def __init__(self, config: pytest.Config) -> None:
        self.carried: Carried = {}
        self.controls: list[str] = []
        self.selected: list[str] = []
        self.is_full_run = False
        self._config, self._began = config, time.time()
        self._outcomes: dict[str, tuple[str, float]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._invariants = invariant_counter.InvariantCounter() if config.getoption("--report") else None
        self._memory = MemoryMonitor() if config.getoption("--report") else None

    def begin(self, test: str) -> None:
        """Start the next test, and forget the requests of the one before."""
        api_client.RECENT_REQUESTS.clear()
        if self._memory:
            self._memory.begin(test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of a test: the worst outcome counts, and the times add up."""
        before, seconds = self._outcomes.get(report.nodeid, ("passed", 0.0))
        outcome = before if before == "failed" or report.outcome == "passed" else report.outcome
        self._outcomes[report.nodeid] = (outcome, seconds + report.duration)
        if report.failed and report.nodeid not in self._failures:
            requests = list(api_client.RECENT_REQUESTS)[-REQUESTS:]
            text = "\n".join([report.longreprtext, *(f"── {title}\n{content}" for title, content in report.sections)])
            self._failures[report.nodeid] = {"when": report.when, "text": text[-TEXT:], "requests": requests}

    def close(self) -> None:
        """Stop counting."""
        if self._invariants:
            self._invariants.close()
        if self._memory:
            self._memory.close()

    def write(self, path: Path, exitstatus: int, logs: Sequence[Path]) -> None:
        """Write the record to `path`. `logs` are the log files of this session's stacks."""
        known = {test: (outcome, round(seconds, 3)) for test, (outcome, seconds) in self._outcomes.items()}
        found = {
            "began": datetime.fromtimestamp(self._began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._began, 1),
            "exit": exitstatus,
            "command": shlex.join(["pytest", *self._config.invocation_params.args]),
            "commit": (run_git("describe", "--always", "--dirty", "--abbrev=10") or "").strip(),
            "full_run": self.is_full_run,
            "machine": describe_machine(),
            "selected": len(self.selected),
            "not_run": [test for test in self.selected if test not in known],
            "tests": known,
            "claims": self.carried,
            "controls": self.controls,
            "failures": self._explain(logs),
            "invariants": self._invariants.totals() if self._invariants else {},
            "memory": self._memory.seen if self._memory else None,
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, ensure_ascii=False))

    def _explain(self, logs: Sequence[Path]) -> list[dict[str, Any]]:
        wanted = {request[0] for failure in self._failures.values() for request in failure["requests"]}
        lines = trace.find_requests(logs, wanted.__contains__) if wanted else {}
        return [_explain(test, failure, lines) for test, failure in self._failures.items()]


def read_last_seconds(path: Path) -> dict[str, float]:
    """Return the seconds that each test of an earlier run took, or nothing without an earlier run."""
    try:
        return {test: seconds for test, (_, seconds) in json.loads(path.read_text())["tests"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def _explain(test: str, failure: Mapping[str, Any], lines: Mapping[str, list[trace.LogLine]]) -> dict[str, Any]:
    requests = [
        {"id": correlation_id, "summary": summary, "lines": trace.format_lines(lines.get(correlation_id, [])[:LINES])}
        for correlation_id, summary in failure["requests"]
    ]
    replay = f"{REPLAY} {shlex.quote(test)}"
    return {"test": test, "when": failure["when"], "replay": replay, "text": failure["text"], "requests": requests}


def describe_machine() -> dict[str, str]:
    """Describe the machine on which the figures were measured."""
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
