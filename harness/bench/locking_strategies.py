"""Six locking strategies to sell one seat once, compared on one table.

Inventory uses NOWAIT. The last strategy has no guard and oversells, as a negative control. In every strategy a
winner's transaction takes `work` seconds between its read of the seat and its end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errors

Connect = Callable[[], Any]

_TABLE = """
CREATE SCHEMA contest;
CREATE TABLE contest.seats (seat int PRIMARY KEY, status text NOT NULL DEFAULT 'AVAILABLE', holder int,
                            version int NOT NULL DEFAULT 0) WITH (fillfactor = 70)"""
_SEAT = "SELECT status, version FROM contest.seats WHERE seat = %(seat)s"
_HOLD = "UPDATE contest.seats SET status = 'HELD', holder = %(buyer)s, version = version + 1 WHERE seat = %(seat)s"
_WORK = "SELECT pg_sleep(%(work)s)"


@dataclass(frozen=True)
class BuyResult:
    """The result of one buyer's attempt to buy one seat.

    Times are in seconds. `wasted` counts transactions that sold nothing.
    """

    buyer: int
    seat: int
    has_won: bool
    start: float
    end: float
    wasted: int

    @property
    def seconds(self) -> float:
        """The latency of the attempt."""
        return self.end - self.start


Strategy = Callable[[Any, dict[str, Any]], tuple[bool, int]]
"""Tries to buy a seat on a cursor. Returns whether it won, and the number of transactions that sold nothing."""


def _lock_first(clause: str) -> Strategy:
    def buy_seat(cursor: Any, params: dict[str, Any]) -> tuple[bool, int]:
        try:
            cursor.execute(f"{_SEAT} FOR UPDATE {clause}", params)
        except errors.LockNotAvailable:
            return False, 1
        found = cursor.fetchone()
        if found is None or found[0] != "AVAILABLE":
            return False, 1
        cursor.execute(_WORK, params)
        cursor.execute(_HOLD, params)
        return True, 0

    return buy_seat


def _update_conditionally(cursor: Any, params: dict[str, Any]) -> tuple[bool, int]:
    cursor.execute(f"{_HOLD} AND status = 'AVAILABLE'", params)
    if not cursor.rowcount:
        return False, 1
    cursor.execute(_WORK, params)
    return True, 0


def _compare_version(cursor: Any, params: dict[str, Any]) -> tuple[bool, int]:
    wasted = 0
    while True:
        cursor.execute(_SEAT, params)
        status, version = cursor.fetchone()
        if status != "AVAILABLE":
            return False, wasted + 1
        cursor.execute(_WORK, params)
        cursor.execute(f"{_HOLD} AND version = %(version)s", {**params, "version": version})
        if cursor.rowcount:
            return True, wasted
        cursor.connection.rollback()  # another buyer was faster, so this work is lost: read the seat again
        wasted += 1


def _update_unguarded(cursor: Any, params: dict[str, Any]) -> tuple[bool, int]:
    cursor.execute(_SEAT, params)
    if cursor.fetchone()[0] != "AVAILABLE":
        return False, 1
    cursor.execute(_WORK, params)
    cursor.execute(_HOLD, params)
    return True, 0


NOWAIT, BLOCKING, NO_GUARD = "FOR UPDATE NOWAIT", "FOR UPDATE", "no guard"
STRATEGIES: dict[str, Strategy] = {
    NOWAIT: _lock_first("NOWAIT"),
    BLOCKING: _lock_first(""),
    "SKIP LOCKED": _lock_first("SKIP LOCKED"),
    "conditional UPDATE": _update_conditionally,
    "version column": _compare_version,
    NO_GUARD: _update_unguarded,
}


@contextmanager
def create_seats(connect: Connect, seats: int) -> Iterator[None]:
    """Create a table of seats in its own schema, and drop both when the block ends."""
    with closing(connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DROP SCHEMA IF EXISTS contest CASCADE")
        cursor.execute(_TABLE)
        cursor.execute("INSERT INTO contest.seats SELECT generate_series(1, %s)", (seats,))
        try:
            yield
        finally:
            cursor.execute("DROP SCHEMA contest CASCADE")


def sell_to_concurrent_buyers(
    connect: Connect, strategy: str, buyers: int, seats: Sequence[int], work: float
) -> list[BuyResult]:
    """Let all `buyers` try to buy the same seat at once, seat after seat, each on its own connection."""
    with _connections(connect, buyers) as connections, ThreadPoolExecutor(buyers) as pool:
        results = []
        for seat in seats:
            start = threading.Barrier(buyers)
            futures = [
                pool.submit(_buy, connection, STRATEGIES[strategy], {"seat": seat, "buyer": n, "work": work}, start)
                for n, connection in enumerate(connections)
            ]
            results += [future.result() for future in futures]
        return results


def sell_during_lock(
    connect: Connect, strategy: str, buyers: int, seats: Sequence[int], hold_seconds: float
) -> list[BuyResult]:
    """Return the losers' results while another transaction locks the row for `hold_seconds` and then takes the seat."""
    lost = []
    with _connections(connect, buyers) as connections, closing(connect()) as holder, ThreadPoolExecutor(buyers) as pool:
        for seat in seats:
            params = {"seat": seat, "buyer": -1, "work": hold_seconds}
            with holder.cursor() as cursor:
                cursor.execute(f"{_SEAT} FOR UPDATE", params)
                start = threading.Barrier(buyers + 1)
                waiting = [
                    pool.submit(_buy, c, STRATEGIES[strategy], {**params, "buyer": n, "work": 0}, start)
                    for n, c in enumerate(connections)
                ]
                start.wait()
                cursor.execute(_WORK, params)
                cursor.execute(_HOLD, params)
            holder.commit()
            lost += [future.result() for future in waiting]
    return lost


def _buy(connection: Any, strategy: Strategy, params: dict[str, Any], barrier: threading.Barrier) -> BuyResult:
    barrier.wait()
    start = time.perf_counter()
    with connection.cursor() as cursor:
        has_won, wasted = strategy(cursor, params)
    if has_won:
        connection.commit()
    else:
        connection.rollback()
    return BuyResult(params["buyer"], params["seat"], has_won, start, time.perf_counter(), wasted)


@contextmanager
def _connections(connect: Connect, number: int) -> Iterator[list[Any]]:
    connections: list[Any] = []
    try:
        connections += [connect() for _ in range(number)]
        for connection in connections:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")  # the first statement of a connection is slow, because it loads caches
            connection.rollback()
        yield connections
    finally:
        for connection in connections:
            connection.close()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


class LockWaitMonitor:
    """Samples pg_locks while its block runs, and keeps how many processes waited for a lock and in which queries."""

    _SAMPLE = """
    SELECT a.pid, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()"""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lock-waits", daemon=True)
        self.samples = 0
        self.max_waiting = 0
        self.queries: set[str] = set()

    def __enter__(self) -> LockWaitMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._stop.is_set():
                cursor.execute(self._SAMPLE)
                found = cursor.fetchall()
                self.samples += 1
                self.max_waiting = max(self.max_waiting, len({pid for pid, _ in found}))
                self.queries |= {query for _, query in found}
                self._stop.wait(0.002)
