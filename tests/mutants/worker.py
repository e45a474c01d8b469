"""Runs pytest repeatedly in forks of a process that has imported the libraries, but nothing of the project.

Start it with `python -P worker.py`. Each line on stdin is a job, and each line on stdout is its result.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = (
    "bcrypt", "cryptography.hazmat.primitives.ciphers.aead", "flask.testing", "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection", "grpc_status.rpc_status", "jwt", "msgspec", "pika", "prometheus_client",
    "psutil", "psycopg2.extras", "pytest", "requests", "responses", "stripe",
    "hypothesis.stateful", "yaml",
)  # fmt: skip
OPTIONS = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
POLL_SECONDS = 0.005


class Recorder:
    """A pytest plugin that records the phase, outcome and reason of each test.

    With `fail_fast`, the process exits at the first failure without teardown. A `seed` other than 0 shuffles the tests.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._file = job["report"]
        self._fail_fast = job["fail_fast"]
        self._seed = job["seed"]
        self._reports: list[tuple[str, str, str, str]] = []
        self._not_collected: list[str] = []

    def write(self, code: int) -> None:
        """Write the record for the parent process."""
        record = {"exit": code, "reports": self._reports, "not_collected": self._not_collected}
        Path(self._file).write_text(json.dumps(record))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self._seed:
            random.Random(self._seed).shuffle(items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.failed:
            self._reports.append((report.nodeid, report.when, report.outcome, _get_reason(report)))
        if self._fail_fast and report.when == "call" and report.failed:
            self.write(1)
            _exit()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._not_collected.append(f"{report.nodeid}: {str(report.longrepr)[-500:]}")


def _get_reason(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message).partition("\n")[0][:200] if crash else ""


def run_tests(job: dict[str, Any]) -> None:
    """Run pytest in the tree of the job and write its record. This is all that a child process does."""
    import pytest

    os.setsid()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["tree"])
    sys.path.insert(0, job["tree"])
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": job["tree"]}
    sys.dont_write_bytecode = job["fail_fast"]
    recorder = Recorder(job)
    recorder.write(int(pytest.main([*OPTIONS, *job["arguments"]], plugins=[recorder])))


def run_in_child(job: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of a job in a child process and return its record. Kills the child after `seconds`."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            run_tests(job)
        finally:
            _exit()
    timed_out = not _wait(child, start + job["seconds"])
    report = Path(job["report"])
    record = json.loads(report.read_text()) if report.exists() and not timed_out else {}
    return {**record, "timed_out": timed_out, "seconds": round(time.monotonic() - start, 2)}


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _wait(child: int, deadline: float) -> bool:
    """Wait for a child and kill its process group. Returns False if the deadline passed first."""
    has_ended = False
    while not has_ended and time.monotonic() < deadline:
        has_ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # it ended before it had a process group
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return has_ended


def main() -> None:
    """Take jobs until stdin ends."""
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # so that the garbage collector of a child does not touch, and thereby copy, the shared memory
    for line in sys.stdin:
        print(json.dumps(run_in_child(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
