"""Drives the load: several processes started together, and what the stack's own processes used meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from harness.compose import ROOT
from harness.errors import StackError
from harness.stack import Stack
from harness.strategies import percentile

PROCESSES = 2
STAND_INS = ("fake-", "api-gateway", "epmd")  # for what is not ours: their cost says nothing


@dataclass(frozen=True)
class Load:
    """What came of a load: work done, in how many seconds, how long each took, what each process used in ms a piece."""

    done: int
    seconds: float
    outcomes: Mapping[str, int]
    latencies: Sequence[float]
    cpu_ms: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Pieces of work a second."""
        return self.done / self.seconds

    @property
    def cpu(self) -> float:
        """Milliseconds of CPU a piece of work, all of the stack's processes together."""
        return sum(self.cpu_ms.values())

    def percentile(self, share: float) -> float:
        """Seconds within which that share was answered."""
        return percentile(self.latencies, share)


def drive(
    stack: Stack,
    address: str,
    verb: str,
    work: Sequence[Any],
    *,
    clients: int,
    seconds: float,
    credential: str = "",
    once: bool = False,
    processes: int = PROCESSES,
) -> Load:
    """Work off as much as `clients` can in `seconds`; `once`: all of it, one piece a client.

    Raises StackError when anything but success came back, unless `once`, where losing is what is measured.
    """
    tasks = [
        {
            "address": address,
            "verb": verb,
            "work": list(work[n::processes]),
            "threads": clients // processes,
            "seconds": seconds,
            "credential": credential,
            "once": once,
        }
        for n in range(processes)
    ]
    workers = [_started(task) for task in tasks]
    before = cpu_seconds(stack)
    results = [_finished(worker) for worker in [_told(worker) for worker in workers]]
    after = cpu_seconds(stack)
    outcomes: Counter[str] = Counter()
    for result in results:
        outcomes.update(result["outcomes"])
    done = outcomes["ok"] if not once else sum(outcomes.values())
    if not done or (not once and done != sum(outcomes.values())):
        raise StackError(f"{verb}: {dict(outcomes)}")
    used = {name: (after[name] - before.get(name, 0.0)) * 1000 / done for name in after}
    latencies = [latency for result in results for latency in result["latencies"]]
    return Load(done, max(result["seconds"] for result in results), dict(outcomes), latencies, used)


def _started(task: Mapping[str, Any]) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "harness.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert worker.stdin  # noqa: S101 - it was asked for as a pipe
    assert worker.stdout  # noqa: S101
    worker.stdin.write(json.dumps(task) + "\n")
    worker.stdin.flush()
    if worker.stdout.readline().strip() != "ready":
        raise StackError("a load process did not start")
    return worker


def _told(worker: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert worker.stdin  # noqa: S101
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return worker


def _finished(worker: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = worker.communicate()
    if worker.returncode:
        raise StackError("a load process failed")
    result: dict[str, Any] = json.loads(output)
    return result


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """CPU used so far by each of our services, PostgreSQL and RabbitMQ, with all that they started."""
    return {name: _used(stack, name) for name in stack.names if not name.startswith(STAND_INS)}


def _used(stack: Stack, name: str) -> float:
    total = 0.0
    found = stack.run_dir.record(name).identity.find()
    for process in [found, *found.children(recursive=True)] if found else []:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
