"""The load generator: processes that send requests, and the CPU that the system uses meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from harness.bench.load import STRICT
from harness.bench.locking_strategies import percentile
from harness.bench.meter import Meter
from harness.errors import StackError
from harness.runtime.compose import ROOT

PROCESSES, CLIENTS = 2, 16
SERVED_SHARE = 0.03  # of the CPU use, from which a process counts as one that served the requests


@dataclass(frozen=True)
class Load:
    """The result of one run of the load generator.

    `done` counts work items, `latencies` are in seconds, and `used` is the CPU per item of each process, in the unit
    of the meter.
    """

    done: int
    seconds: float
    outcomes: Mapping[str, int]
    latencies: Sequence[float]
    used: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Work items per second."""
        return self.done / self.seconds

    @property
    def cost(self) -> float:
        """CPU per work item, summed over all processes."""
        return sum(self.used.values())

    @property
    def served_by(self) -> int:
        """The number of processes of services that did at least 3 % of the work."""
        return sum("-service" in name and amount >= SERVED_SHARE * self.cost for name, amount in self.used.items())

    def percentile(self, share: float) -> float:
        """Return the latency in seconds that `share` of the requests did not exceed."""
        return percentile(self.latencies, share)


class LoadGenerator:
    """Keeps the load processes running between runs, so that no measurement includes their start."""

    def __init__(self) -> None:
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> LoadGenerator:
        self._workers = [_start_worker() for _ in range(PROCESSES)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()

    def processes(self) -> dict[str, psutil.Process]:
        """Return the load processes, which use the CPU of the same machine."""
        return {f"load {worker.pid}": psutil.Process(worker.pid) for worker in self._workers}

    def run(
        self,
        address: str,
        operation: str,
        work: Sequence[Any],
        *,
        meter: Meter,
        clients: int,
        seconds: float,
        credential: str = "",
        mode: str = STRICT,
        interval: float = 0.0,
        wait_until_idle: Callable[[], object] = lambda: None,
    ) -> Load:
        """Do as many work items as `clients` can in `seconds`, at the addresses in `address` (separated by commas).

        `wait_until_idle` returns after the work that the responses left behind, so that the meter includes it. The
        mode STRICT raises StackError for any outcome but success. ONCE does all items, one for each client, and REPEAT
        does them again and again. Both allow any outcome. A client begins an item at most each `interval` seconds.
        """
        workers = self._workers[:clients]
        for number, worker in enumerate(workers):
            task = {
                "address": address,
                "operation": operation,
                "work": list(work[number :: len(workers)]),
                "threads": clients // len(workers),
                "seconds": seconds,
                "credential": credential,
                "mode": mode,
                "interval": interval,
            }
            _send(worker, task)
        for worker in workers:
            _receive(worker)  # its clients are connected
        before = meter.reading()
        for worker in workers:
            _send(worker, "start")
        results = [_receive(worker) for worker in workers]
        wait_until_idle()
        after = meter.reading()
        return _combine(operation, results, {name: after[name] - before[name] for name in after}, mode)


def _combine(operation: str, results: Sequence[Mapping[str, Any]], used: Mapping[str, float], mode: str) -> Load:
    outcomes: Counter[str] = Counter()
    for result in results:
        outcomes.update(result["outcomes"])
    done = outcomes["ok"] if mode == STRICT else sum(outcomes.values())
    if not done or (mode == STRICT and done != sum(outcomes.values())):
        raise StackError(f"{operation}: {dict(outcomes)}")
    used_per_item = {name: amount / done for name, amount in used.items()}
    latencies = [latency for result in results for latency in result["latencies"]]
    return Load(done, max(result["seconds"] for result in results), dict(outcomes), latencies, used_per_item)


def _start_worker() -> subprocess.Popen[str]:
    # A session of its own keeps Ctrl-C from the worker. It ends with its stdin, or when the block ends.
    return subprocess.Popen(
        [sys.executable, "-m", "harness.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        start_new_session=True,
    )


def _send(worker: subprocess.Popen[str], message: object) -> None:
    assert worker.stdin  # noqa: S101 - opened as a pipe
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()


def _receive(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout  # noqa: S101 - opened as a pipe
    line = worker.stdout.readline()
    if not line:
        raise StackError("A load process ended early. Its error is above.")
    return json.loads(line)
