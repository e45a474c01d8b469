"""Looks at the running system twice a second, and keeps what a page needs to show it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extras
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from harness import invariants
from harness.runtime.stack import Stack

EVENT = "e0e0e0e0-0000-0000-0000-000000000002"  # the seed's second: 5,000 seats
LOOK_SECONDS, COUNT_EVERY, CHECK_EVERY = 0.5, 2, 4  # a look, and after how many of them rates and invariants
RELEASED_SECONDS = 3.0  # for how long a seat shows that it came free
SHOWN_SECONDS = 60
PATIENCE = 5.0
LETTERS = {"AVAILABLE": "A", "HELD": "H", "SOLD": "S", "CHECKED_IN": "C"}
RELEASED = "R"

_SEATS = """
SELECT string_agg(CASE status WHEN 'AVAILABLE' THEN 'A' WHEN 'HELD' THEN 'H' WHEN 'SOLD' THEN 'S' ELSE 'C' END, ''
                  ORDER BY row_number, seat_number) AS seats, max(seat_number) AS columns
FROM seats WHERE event_id = %s"""
# Series: the service that counts it, its name there, and the labels that it must have.
COUNTED: dict[str, tuple[str, str, dict[str, str]]] = {
    "winners": ("inventory-service", "inventory_holds_total", {}),
    "losers": ("orchestrator-service", "http_requests_total", {"route": "/api/reserve", "status": "409"}),
    "locked": ("inventory-service", "inventory_nowait_losses_total", {}),
}
NEEDED: dict[str, tuple[str, ...]] = {  # of which tables the invariants of any time speak
    "users_db": ("users", "credit_entries", "credit_holds", "stripe_events"),
    "seats_db": ("entry_logs",),
    "orders_db": ("transfers",),
}
BLIND = (psycopg2.Error, urllib3.exceptions.HTTPError, OSError)

logger = logging.getLogger(__name__)


@dataclass
class Verdict:
    """What the looks at one invariant came to. A violation stays: it was there."""

    says: str
    looks: int = 0
    found: list[str] = field(default_factory=list)


class Watch:
    """A thread of its own. `latest` is always whole; a part that is down leaves it as it was, and says so."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._http = urllib3.PoolManager(retries=False, timeout=PATIENCE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._seats, self._columns = "", 1
        self._free_since: dict[int, float] = {}
        self._totals: dict[str, float] = {}
        self._rates: deque[dict[str, float]] = deque(maxlen=SHOWN_SECONDS)
        self._counted_at = 0.0
        self._verdicts = {name: Verdict(check.__doc__ or "") for name, check in CHECKS.items()}
        self.latest = b"{}"

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the last look is over."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        look = 0
        while not self._stop.is_set():
            trouble = ""
            try:
                self._look(look)
            except BLIND as error:
                trouble = type(error).__name__
            self.latest = json.dumps(self._shown(trouble)).encode()
            look += 1
            self._stop.wait(LOOK_SECONDS)

    def _look(self, number: int) -> None:
        self._look_at_seats()
        if number % COUNT_EVERY == 0:
            self._count()
        if number % CHECK_EVERY == 0:
            self._check()

    # ── the three things looked at

    def _look_at_seats(self) -> None:
        with self._connection("seats_db") as cursor:
            cursor.execute(_SEATS, (EVENT,))
            row = cursor.fetchone()
        before, self._seats, self._columns = self._seats, row["seats"], row["columns"]
        now = time.monotonic()
        for index, (was, is_) in enumerate(zip(before, self._seats, strict=False)):
            if was != is_ == "A":
                self._free_since[index] = now
        self._free_since = {
            index: since
            for index, since in self._free_since.items()
            if self._seats[index] == "A" and now - since < RELEASED_SECONDS
        }

    def _count(self) -> None:
        totals = {series: self._total(*where) for series, where in COUNTED.items()}
        now = time.monotonic()
        if self._totals:
            seconds = now - self._counted_at
            self._rates.append({n: max(0.0, totals[n] - self._totals[n]) / seconds for n in totals})
        self._totals, self._counted_at = totals, now

    def _total(self, service: str, name: str, labels: Mapping[str, str]) -> float:
        text = self._http.request("GET", f"{self._stack.url(service)}/metrics").data.decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def _check(self) -> None:
        snapshot = invariants.Snapshot()
        for database, tables in NEEDED.items():
            with self._connection(database) as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for table in tables:
                    cursor.execute(f"SELECT * FROM {table}")
                    snapshot.rows[table] = [dict(row) for row in cursor.fetchall()]
        for name, check in CHECKS.items():
            verdict = self._verdicts[name]
            verdict.looks += 1
            verdict.found += [line for line in check(snapshot) if line not in verdict.found]

    def _connection(self, database: str) -> _Look:
        return _Look(self._stack.admin_dsn(database))

    def _shown(self, trouble: str) -> dict[str, Any]:
        seats = list(self._seats)
        for index in self._free_since:
            seats[index] = RELEASED
        return {
            "trouble": trouble,
            "columns": self._columns,
            "seats": "".join(seats),
            "counts": Counter(seats),
            "totals": self._totals,
            "rates": list(self._rates),
            "invariants": {name: vars(verdict) for name, verdict in self._verdicts.items()},
        }


class _Look:
    """One transaction on a connection of its own, both over at the end of the block."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=2)

    def __enter__(self) -> Any:
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


Check = Callable[[invariants.Snapshot], Any]
CHECKS: dict[str, Check] = {check.__name__.partition("_")[0].upper(): check for check in invariants.AT_ANY_TIME}
