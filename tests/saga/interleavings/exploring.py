"""Explores pairs in worker processes, and describes each failing schedule after it is shrunk.

A search is a pair in one of the modes. `make verify` runs the first two, `make interleavings` all except the first.
"""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from math import inf

from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.process_pool import count_workers, engine, open_pool
from tests.saga.interleavings.explorer import Exploration, Run, format_prefix, parse_prefix, shrink
from tests.saga.interleavings.oracle import Oracle
from tests.saga.interleavings.pair_runner import Injected, PairRunner, open_runner
from tests.saga.interleavings.pairs import MATRIX_PAIRS, PAIRS, choose_third, parse_pair

REPLAY = 'pytest tests/saga/interleavings/test_schedules.py --schedule "{}"'
MOST_FAILURES = 3  # shown of a search
MOST_SCHEDULES = 1000  # of a pair whose schedules are all executed. A pair with more is not short.
WITH_FAULT = " with "  # between schedule and fault


class Mode(StrEnum):
    """The schedules of a search."""

    ONE = "one preemption"
    TWO = "two preemptions"
    ALL = "all schedules"
    THIRD = "third actor, one preemption"
    LOST = "lost reply, one preemption"
    DEATH = "process death, one preemption"


BOUNDS = dict.fromkeys((Mode.ONE, Mode.THIRD, Mode.LOST, Mode.DEATH), (1.0, inf))
BOUNDS |= {Mode.TWO: (2.0, inf), Mode.ALL: (inf, float(MOST_SCHEDULES))}
FAULTS = {Mode.LOST: Kind.LOST, Mode.DEATH: Kind.DIES_AFTER}
DEEP = (Mode.TWO, Mode.ALL, Mode.THIRD, Mode.LOST, Mode.DEATH)


@dataclass(frozen=True)
class Search:
    """A pair and the schedules to execute."""

    pair: str
    mode: Mode

    def __str__(self) -> str:
        return f"{self.pair}, {self.mode}"


@dataclass(frozen=True)
class Executed:
    """One executed schedule, without its steps."""

    schedule: str
    outcome: str
    state: str
    exception: str
    is_serial: bool


@dataclass(frozen=True)
class SearchReport:
    """The result of a search. It is not complete if it stopped at a limit."""

    search: Search
    executed: tuple[Executed, ...]
    failures: tuple[str, ...]
    is_complete: bool
    seconds: float


def list_verified() -> list[Search]:
    """The searches of `make verify`."""
    return [Search(pair, Mode.TWO if pair in MATRIX_PAIRS else Mode.ONE) for pair in PAIRS]


def explore_all(searches: Sequence[Search], deadline: float = inf) -> Iterator[SearchReport]:
    """Run searches in one worker process per core, and yield each report when it is ready.

    No search begins after `deadline` (`time.monotonic`).
    """
    left, count = iter(searches), min(count_workers(), len(searches))
    with open_pool(count) as pool:
        running = {pool.submit(_search_in_worker, search) for search in islice(left, count)}
        while running:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            if time.monotonic() < deadline:
                running |= {pool.submit(_search_in_worker, search) for search in islice(left, len(ready))}
            yield from (future.result() for future in ready)


def _search_in_worker(search: Search) -> SearchReport:
    return explore(_open_runner(), search)


_runners: list[PairRunner] = []


def _open_runner() -> PairRunner:
    """The runner of this worker process."""
    if not _runners:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        _runners.append(stack.enter_context(open_runner(engine())))
    return _runners[0]


def explore(runner: PairRunner, search: Search, *, stops: bool = False) -> SearchReport:
    """Run one search. It stops at the first failing schedule if `stops` is set."""
    start, failures = time.monotonic(), list[str]()
    pair = choose_third(PAIRS[search.pair]) if search.mode is Mode.THIRD else PAIRS[search.pair]
    executed, is_complete = list[Executed](), True
    for oracle in _build_oracles(Oracle(pair, runner), FAULTS.get(search.mode)):
        exploration = Exploration(oracle.run, tuple(pair.acts), *BOUNDS[search.mode], stops=stops)
        runs = exploration.explore()
        is_complete &= exploration.is_complete
        failing = {run.outcome + run.problem[:40]: run for run in reversed(runs) if run.problem}
        failures += [describe(oracle, shrink(run, oracle.run)) for run in list(failing.values())[:MOST_FAILURES]]
        executed += [
            Executed(format_schedule(oracle, run), run.outcome, run.state, run.exception, run.is_serial) for run in runs
        ]
    return SearchReport(search, tuple(executed), tuple(failures), is_complete, time.monotonic() - start)


def _build_oracles(oracle: Oracle, kind: Kind | None) -> Iterator[Oracle]:
    """Yield the oracle itself, or one for a fault in each call that an actor's orchestrator makes in a serial order."""
    if kind is None:
        yield oracle
        return
    serial = oracle.serial[frozenset(oracle.pair.acts)]
    calls = ((step.actor, edge) for run in serial for step, edge in zip(run.steps, run.edges, strict=True) if edge)
    for actor, edge in dict.fromkeys(calls):
        yield Oracle(oracle.pair, oracle.runner, Injected(actor, Fault(edge, kind)))


def format_schedule(oracle: Oracle, run: Run) -> str:
    """The text of a schedule, such as `pay~scan (held): a7 b`."""
    fault = f"{WITH_FAULT}{oracle.injected}" if oracle.injected else ""
    return f"{oracle.pair.name}: {format_prefix(run.prefix)}{fault}"


def replay(runner: PairRunner, schedule: str) -> tuple[Oracle, Run]:
    """Execute a schedule such as `pay~scan (held): a7 b` and judge it."""
    pair, _, text = schedule.partition(": ")
    prefix, _, fault = text.partition(WITH_FAULT)
    actor, _, call = fault.partition(" ")
    edge, _, kind = call.rpartition(": ")
    oracle = Oracle(parse_pair(pair), runner, Injected(actor, Fault(edge, Kind(kind))) if fault else None)
    return oracle, oracle.run(parse_prefix(prefix))


def describe(oracle: Oracle, run: Run) -> str:
    """The problem of a run, the command that replays it, and its sequence."""
    return f"{run.problem}\n\n{REPLAY.format(format_schedule(oracle, run))}\n{run.describe()}"
