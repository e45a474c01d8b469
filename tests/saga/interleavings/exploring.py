"""Explores pairs in worker processes, and describes each failing schedule after it is shrunk."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tests.saga.in_process.process_pool import count_workers, engine, open_pool
from tests.saga.interleavings.explorer import Exploration, Run, format_prefix, parse_prefix, shrink
from tests.saga.interleavings.oracle import Oracle
from tests.saga.interleavings.pair_runner import PairRunner, open_runner
from tests.saga.interleavings.pairs import PAIRS

REPLAY = 'pytest tests/saga/interleavings/test_schedules.py --schedule "{}"'
MOST_FAILURES = 3  # shown of a pair


@dataclass(frozen=True)
class PairReport:
    """The exploration of one pair. `runs` has schedule, outcome, exception and number of preemptions of each run."""

    pair: str
    runs: tuple[tuple[str, str, str, int], ...]
    failures: tuple[str, ...]
    seconds: float


def explore_all(work: Sequence[tuple[str, int]]) -> dict[str, PairReport]:
    """Explore pairs, each with its bound of preemptions, in one worker process per core."""
    with open_pool(min(count_workers(), len(work))) as pool:
        return {report.pair: report for report in pool.map(_explore_in_worker, work)}


def _explore_in_worker(work: tuple[str, int]) -> PairReport:
    return explore(_open_runner(), *work)


_runners: list[PairRunner] = []


def _open_runner() -> PairRunner:
    """The runner of this worker process."""
    if not _runners:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        _runners.append(stack.enter_context(open_runner(engine())))
    return _runners[0]


def explore(runner: PairRunner, pair: str, bound: int, *, stops: bool = False) -> PairReport:
    """Explore one pair. It stops at the first failing schedule if `stops` is set."""
    start = time.monotonic()
    oracle = Oracle(PAIRS[pair], partial(runner.execute, PAIRS[pair]))
    runs = Exploration(oracle.run, tuple(oracle.acts), bound, stops).explore()
    failing = {run.outcome + run.problem[:40]: run for run in reversed(runs) if run.problem}
    failures = tuple(describe(pair, shrink(run, oracle.run)) for run in list(failing.values())[:MOST_FAILURES])
    rows = tuple((format_prefix(run.prefix), run.outcome, run.exception, run.preemptions) for run in runs)
    return PairReport(pair, rows, failures, time.monotonic() - start)


def replay(runner: PairRunner, schedule: str) -> Run:
    """Execute a schedule such as `pay~scan (held): a7 b` and judge it."""
    pair, _, text = schedule.partition(": ")
    oracle = Oracle(PAIRS[pair], partial(runner.execute, PAIRS[pair]))
    return oracle.run(parse_prefix(text))


def describe(pair: str, run: Run) -> str:
    """The problem of a run, the command that replays it, and its sequence."""
    schedule = f"{pair}: {format_prefix(run.prefix)}"
    return f"{run.problem}\n\n{REPLAY.format(schedule)}\n{run.describe()}"
