"""Drives the load: processes that stay, told together to begin, and what the stack's own processes used meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from harness.bench.locking_strategies import percentile
from harness.bench.meter import Clock, Meter
from harness.errors import StackError
from harness.runtime.compose import ROOT
from harness.runtime.stack import Stack

PROCESSES, CLIENTS = 2, 16
STAND_INS = ("fake-", "api-gateway", "epmd")  # for what is not ours: their cost says nothing


@dataclass(frozen=True)
class Load:
    """What came of a load: work done, in how many seconds, how long each took, what each process used a piece of it.

    `used` is in the unit of the meter that read it.
    """

    done: int
    seconds: float
    outcomes: Mapping[str, int]
    latencies: Sequence[float]
    used: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Pieces of work a second."""
        return self.done / self.seconds

    @property
    def cost(self) -> float:
        """What a piece of work costs, all processes together."""
        return sum(self.used.values())

    def percentile(self, share: float) -> float:
        """Seconds within which that share was answered."""
        return percentile(self.latencies, share)


class Crew:
    """The load processes. They stay, so that no measurement pays for their start, and end with the block."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Crew:
        self._workers = [_started() for _ in range(PROCESSES)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()

    def drive(
        self,
        address: str,
        verb: str,
        work: Sequence[Any],
        *,
        clients: int,
        seconds: float,
        credential: str = "",
        once: bool = False,
        meter: Meter | None = None,
        settled: Callable[[], object] = lambda: None,
    ) -> Load:
        """Work off as much as `clients` can in `seconds`; `once`: all of it, one piece a client.

        `meter` reads what is used meanwhile; unless it is given, it is the CPU time of the system. `settled` returns
        when what the answers have left to be done is done too, so that its cost counts. Raises StackError when anything
        but success came back, unless `once`, where losing is what is measured.
        """
        workers, meter = self._workers[:clients], meter or Clock(ours(self._stack))
        for number, worker in enumerate(workers):
            _tell(
                worker,
                {
                    "address": address,
                    "verb": verb,
                    "work": list(work[number :: len(workers)]),
                    "threads": clients // len(workers),
                    "seconds": seconds,
                    "credential": credential,
                    "once": once,
                },
            )
        for worker in workers:
            _heard(worker)  # it is connected
        before = meter.reading()
        for worker in workers:
            _tell(worker, "go")
        results = [_heard(worker) for worker in workers]
        settled()
        after = meter.reading()
        return _load(verb, results, {name: after[name] - before[name] for name in after}, once)


def _load(verb: str, results: Sequence[Mapping[str, Any]], used: Mapping[str, float], once: bool) -> Load:
    outcomes: Counter[str] = Counter()
    for result in results:
        outcomes.update(result["outcomes"])
    done = outcomes["ok"] if not once else sum(outcomes.values())
    if not done or (not once and done != sum(outcomes.values())):
        raise StackError(f"{verb}: {dict(outcomes)}")
    a_piece = {name: amount / done for name, amount in used.items()}
    latencies = [latency for result in results for latency in result["latencies"]]
    return Load(done, max(result["seconds"] for result in results), dict(outcomes), latencies, a_piece)


def _started() -> subprocess.Popen[str]:
    # In a session of its own: a Ctrl-C is for us, and it ends when we say so or are gone.
    return subprocess.Popen(
        [sys.executable, "-m", "harness.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        start_new_session=True,
    )


def _tell(worker: subprocess.Popen[str], what: object) -> None:
    assert worker.stdin  # noqa: S101 - it was asked for as a pipe
    worker.stdin.write(json.dumps(what) + "\n")
    worker.stdin.flush()


def _heard(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout  # noqa: S101
    line = worker.stdout.readline()
    if not line:
        raise StackError("a load process ended")
    return json.loads(line)


def ours(stack: Stack) -> dict[str, psutil.Process]:
    """The process of each of our services, PostgreSQL and RabbitMQ. Raises StackError when one has ended."""
    found = {
        name: stack.run_dir.read_record(name).identity.find() for name in stack.names if not name.startswith(STAND_INS)
    }
    running = {name: process for name, process in found.items() if process}
    if missing := found.keys() - running.keys():
        raise StackError(f"not running: {', '.join(sorted(missing))}")
    return running
