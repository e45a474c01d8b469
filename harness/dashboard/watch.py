"""Reads the state of the running system twice a second for the dashboard."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extras
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from harness import invariants
from harness.runtime.stack import Stack

EVENT = "e0e0e0e0-0000-0000-0000-000000000002"  # the second event of the seed data, with 5,000 seats
READ_SECONDS, COUNT_EVERY, CHECK_EVERY = 0.5, 2, 4  # counts and checks run on every 2nd and 4th read
RELEASED_SECONDS = 3.0  # how long a seat is shown as just released
SHOWN_SECONDS = 60
TIMEOUT_SECONDS = 5.0
RELEASED = "R"

_SEATS = """
SELECT string_agg(CASE status WHEN 'AVAILABLE' THEN 'A' WHEN 'HELD' THEN 'H' WHEN 'SOLD' THEN 'S' ELSE 'C' END, ''
                  ORDER BY row_number, seat_number) AS seats, max(seat_number) AS columns
FROM seats WHERE event_id = %s"""
# Each series with its service, its metric and the labels that it must have.
METRICS: dict[str, tuple[str, str, dict[str, str]]] = {
    "winners": ("inventory-service", "inventory_holds_total", {}),
    "losers": ("orchestrator-service", "http_requests_total", {"route": "/api/reserve", "status": "409"}),
    "locked": ("inventory-service", "inventory_nowait_losses_total", {}),
}
TABLES: dict[str, tuple[str, ...]] = {  # the tables that the invariants of CHECKS read
    "users_db": ("users", "credit_entries", "credit_holds", "stripe_events", "payment_reversals"),
    "seats_db": ("entry_logs",),
    "orders_db": ("transfers",),
}
ERRORS = (psycopg2.Error, urllib3.exceptions.HTTPError, OSError)


@dataclass
class Verdict:
    """The result of all checks of one invariant. Violations are never removed."""

    rule: str
    checks: int = 0
    violations: list[str] = field(default_factory=list)


class Watch:
    """A thread that keeps the state in `latest` as JSON. If a service is down, its part keeps its last value."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._http = urllib3.PoolManager(retries=False, timeout=TIMEOUT_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._seats, self._columns = "", 1
        self._free_since: dict[int, float] = {}
        self._totals: dict[str, float] = {}
        self._rates: deque[dict[str, float]] = deque(maxlen=SHOWN_SECONDS)
        self._last_count = 0.0
        self._verdicts = {name: Verdict(check.__doc__ or "") for name, check in CHECKS.items()}
        self.latest = b"{}"

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            failure = ""
            try:
                self._read(number)
            except ERRORS as error:
                failure = type(error).__name__
            self.latest = json.dumps(self._build_state(failure)).encode()
            number += 1
            self._stop.wait(READ_SECONDS)

    def _read(self, number: int) -> None:
        self._read_seats()
        if number % COUNT_EVERY == 0:
            self._count()
        if number % CHECK_EVERY == 0:
            self._check()

    def _read_seats(self) -> None:
        with self._connect("seats_db") as cursor:
            cursor.execute(_SEATS, (EVENT,))
            row = cursor.fetchone()
        before, self._seats, self._columns = self._seats, row["seats"], row["columns"]
        now = time.monotonic()
        for index, (old, new) in enumerate(zip(before, self._seats, strict=False)):
            if old != new == "A":
                self._free_since[index] = now
        self._free_since = {
            index: since
            for index, since in self._free_since.items()
            if self._seats[index] == "A" and now - since < RELEASED_SECONDS
        }

    def _count(self) -> None:
        totals = {series: self._sum_metric(*metric) for series, metric in METRICS.items()}
        now = time.monotonic()
        if self._totals:
            seconds = now - self._last_count
            self._rates.append({n: max(0.0, totals[n] - self._totals[n]) / seconds for n in totals})
        self._totals, self._last_count = totals, now

    def _sum_metric(self, service: str, name: str, labels: Mapping[str, str]) -> float:
        text = self._http.request("GET", f"{self._stack.url(service)}/metrics").data.decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def _check(self) -> None:
        snapshot = invariants.Snapshot()
        for database, tables in TABLES.items():
            with self._connect(database) as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for table in tables:
                    cursor.execute(f"SELECT * FROM {table}")
                    snapshot.rows[table] = [dict(row) for row in cursor.fetchall()]
        for name, check in CHECKS.items():
            verdict = self._verdicts[name]
            verdict.checks += 1
            verdict.violations += [line for line in check(snapshot) if line not in verdict.violations]

    @contextmanager
    def _connect(self, database: str) -> Iterator[Any]:
        dsn = self._stack.admin_dsn(database)
        connection = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=2)
        with closing(connection):
            yield connection.cursor()

    def _build_state(self, error: str) -> dict[str, Any]:
        seats = list(self._seats)
        for index in self._free_since:
            seats[index] = RELEASED
        return {
            "error": error,
            "columns": self._columns,
            "seats": "".join(seats),
            "counts": Counter(seats),
            "totals": self._totals,
            "rates": list(self._rates),
            "invariants": {name: vars(verdict) for name, verdict in self._verdicts.items()},
        }


Check = Callable[[invariants.Snapshot], Any]
CHECKS: dict[str, Check] = {check.__name__.partition("_")[0].upper(): check for check in invariants.AT_ANY_TIME}
