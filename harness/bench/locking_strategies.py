"""Six ways to sell one seat once, side by side on one table: what each costs its winner, its losers and the server.

NOWAIT is what Inventory does. The others are what it might have done; the last is no way at all, and oversells.
A buyer's transaction takes `work` seconds between looking at the seat and being done with it, whatever the strategy.
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
class Buy:
    """One buyer's attempt at one seat. Times are in seconds; `wasted` counts transactions that sold nothing."""

    buyer: int
    seat: int
    won: bool
    call: float
    back: float
    wasted: int

    @property
    def seconds(self) -> float:
        """How long the buyer waited for the answer."""
        return self.back - self.call


Attempt = Callable[[Any, dict[str, Any]], tuple[bool, int]]
"""Runs on a cursor with seat, buyer and work; whether it won, and how many transactions were for nothing."""


def _locking(clause: str) -> Attempt:
    def attempt(cursor: Any, asked: dict[str, Any]) -> tuple[bool, int]:
        try:
            cursor.execute(f"{_SEAT} FOR UPDATE {clause}", asked)
        except errors.LockNotAvailable:
            return False, 1
        found = cursor.fetchone()
        if found is None or found[0] != "AVAILABLE":
            return False, 1
        cursor.execute(_WORK, asked)
        cursor.execute(_HOLD, asked)
        return True, 0

    return attempt


def _conditional(cursor: Any, asked: dict[str, Any]) -> tuple[bool, int]:
    cursor.execute(f"{_HOLD} AND status = 'AVAILABLE'", asked)
    if not cursor.rowcount:
        return False, 1
    cursor.execute(_WORK, asked)
    return True, 0


def _versioned(cursor: Any, asked: dict[str, Any]) -> tuple[bool, int]:
    wasted = 0
    while True:
        cursor.execute(_SEAT, asked)
        status, version = cursor.fetchone()
        if status != "AVAILABLE":
            return False, wasted + 1
        cursor.execute(_WORK, asked)
        cursor.execute(f"{_HOLD} AND version = %(version)s", {**asked, "version": version})
        if cursor.rowcount:
            return True, wasted
        cursor.connection.rollback()  # somebody was faster: all of this work was for nothing; look again
        wasted += 1


def _unguarded(cursor: Any, asked: dict[str, Any]) -> tuple[bool, int]:
    cursor.execute(_SEAT, asked)
    if cursor.fetchone()[0] != "AVAILABLE":
        return False, 1
    cursor.execute(_WORK, asked)
    cursor.execute(_HOLD, asked)
    return True, 0


NOWAIT, BLOCKING, NO_GUARD = "FOR UPDATE NOWAIT", "FOR UPDATE", "no guard"
STRATEGIES: dict[str, Attempt] = {
    NOWAIT: _locking("NOWAIT"),
    BLOCKING: _locking(""),
    "SKIP LOCKED": _locking("SKIP LOCKED"),
    "conditional UPDATE": _conditional,
    "version column": _versioned,
    NO_GUARD: _unguarded,
}


@contextmanager
def table(connect: Connect, seats: int) -> Iterator[None]:
    """The table of the contest, in a schema of its own that is gone afterwards."""
    with closing(connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DROP SCHEMA IF EXISTS contest CASCADE")
        cursor.execute(_TABLE)
        cursor.execute("INSERT INTO contest.seats SELECT generate_series(1, %s)", (seats,))
        try:
            yield
        finally:
            cursor.execute("DROP SCHEMA contest CASCADE")


def contest(connect: Connect, strategy: str, buyers: int, seats: Sequence[int], work: float) -> list[Buy]:
    """All `buyers` go for the same seat at the same moment, seat after seat, each on a connection of its own."""
    with _connections(connect, buyers) as connections, ThreadPoolExecutor(buyers) as pool:
        buys = []
        for seat in seats:
            start = threading.Barrier(buyers)
            attempts = [
                pool.submit(_buy, connection, STRATEGIES[strategy], {"seat": seat, "buyer": n, "work": work}, start)
                for n, connection in enumerate(connections)
            ]
            buys += [attempt.result() for attempt in attempts]
        return buys


def against_a_holder(
    connect: Connect, strategy: str, buyers: int, seats: Sequence[int], hold_seconds: float
) -> list[Buy]:
    """What the losers wait while somebody holds the row's lock for `hold_seconds` and takes the seat then."""
    lost = []
    with _connections(connect, buyers) as connections, closing(connect()) as holder, ThreadPoolExecutor(buyers) as pool:
        for seat in seats:
            asked = {"seat": seat, "buyer": -1, "work": hold_seconds}
            with holder.cursor() as cursor:
                cursor.execute(f"{_SEAT} FOR UPDATE", asked)
                start = threading.Barrier(buyers + 1)
                waiting = [
                    pool.submit(_buy, c, STRATEGIES[strategy], {**asked, "buyer": n, "work": 0}, start)
                    for n, c in enumerate(connections)
                ]
                start.wait()
                cursor.execute(_WORK, asked)
                cursor.execute(_HOLD, asked)
            holder.commit()
            lost += [buy.result() for buy in waiting]
    return lost


def _buy(connection: Any, attempt: Attempt, asked: dict[str, Any], start: threading.Barrier) -> Buy:
    start.wait()
    call = time.perf_counter()
    with connection.cursor() as cursor:
        won, wasted = attempt(cursor, asked)
    if won:
        connection.commit()
    else:
        connection.rollback()
    return Buy(asked["buyer"], asked["seat"], won, call, time.perf_counter(), wasted)


@contextmanager
def _connections(connect: Connect, number: int) -> Iterator[list[Any]]:
    connections: list[Any] = []
    try:
        connections += [connect() for _ in range(number)]
        for connection in connections:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")  # a connection's first statement loads its caches: not what is measured
            connection.rollback()
        yield connections
    finally:
        for connection in connections:
            connection.close()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


class Waiters:
    """Looks into pg_locks again and again while its block runs: who waited in its database for a lock, for what."""

    _LOOK = """
    SELECT a.pid, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()"""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waiters", daemon=True)
        self.looks = 0
        self.most = 0
        self.queries: set[str] = set()

    def __enter__(self) -> Waiters:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._over.is_set():
                cursor.execute(self._LOOK)
                found = cursor.fetchall()
                self.looks += 1
                self.most = max(self.most, len({pid for pid, _ in found}))
                self.queries |= {query for _, query in found}
                self._over.wait(0.002)  # between two looks
