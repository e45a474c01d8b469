"""Runs pytest over and over in forks of a process that has imported the libraries and nothing of ours.

A program of its own: `python -P worker.py`. Each line on stdin is a job, each line on stdout what came of it.
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
    "psutil", "psycopg2.extras", "pytest", "requests", "responses", "sqlalchemy.dialects.postgresql.psycopg2", "stripe",
    "hypothesis.stateful", "yaml",
)  # fmt: skip
OPTIONS = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
POLL = 0.005  # seconds between two looks at a child


class Recorder:
    """What happened to each test, by its node id: phase, outcome, and the reason in one line.

    `at_first`: the first test that fails is all that is wanted, and nothing is put away after it. `seed`: the order in
    which the files' tests come, 0 for their own.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._file = job["report"]
        self._at_first = job["at_first"]
        self._seed = job["seed"]
        self._reports: list[tuple[str, str, str, str]] = []
        self._not_collected: list[str] = []

    def write(self, code: int) -> None:
        """Leave the record to the parent."""
        record = {"exit": code, "reports": self._reports, "not_collected": self._not_collected}
        Path(self._file).write_text(json.dumps(record))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self._seed:
            random.Random(self._seed).shuffle(items)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.failed:
            self._reports.append((report.nodeid, report.when, report.outcome, _reason(report)))
        if self._at_first and report.when == "call" and report.failed:
            self.write(1)
            _leave()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._not_collected.append(f"{report.nodeid}: {str(report.longrepr)[-500:]}")


def _reason(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message).partition("\n")[0][:200] if crash else ""


def run_tests(job: dict[str, Any]) -> None:
    """The whole life of a child: pytest in the job's tree, its record in the job's report."""
    import pytest

    os.setsid()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["tree"])
    sys.path.insert(0, job["tree"])
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": job["tree"]}
    sys.dont_write_bytecode = job["at_first"]
    recorder = Recorder(job)
    recorder.write(int(pytest.main([*OPTIONS, *job["arguments"]], plugins=[recorder])))


def forked(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job's tests in a child, which is killed when its time is up; what it recorded."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            run_tests(job)
        finally:
            _leave()
    timed_out = not _ended(child, began + job["seconds"])
    report = Path(job["report"])
    record = json.loads(report.read_text()) if report.exists() and not timed_out else {}
    return {**record, "timed_out": timed_out, "seconds": round(time.monotonic() - began, 2)}


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _ended(child: int, deadline: float) -> bool:
    """True when the child ended by itself. What it started in its own group ends with it either way."""
    ended = False
    while not ended and time.monotonic() < deadline:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        time.sleep(POLL)
    with contextlib.suppress(ProcessLookupError):  # it had not come so far as to have a group
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return ended


def main() -> None:
    """Take jobs until stdin ends."""
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # what is here already is nothing that a child has to look through, or to copy
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
