"""The state that the users of a load share, and the check of the system at its end."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from locust.env import Environment

from harness import invariants, runtime
from harness.runtime.process import wait_for
from tests.support.inserts import EVENT
from tests.support.people import Person
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem

SEATS = "LOAD_SEATS"  # environment variable: a JSON file of the seats to use (default: all that are AVAILABLE)
REPORT = "LOAD_REPORT"  # environment variable: the file for the results
REST_SECONDS = float(os.environ.get("LOAD_REST_SECONDS", "20"))  # for sagas and sweepers to finish
CUSTOMERS_AT_ONCE = 50
MANY_CREDITS = "100000.00"
CLIENT_ERRORS = (400, 401, 403, 404, 405, 413, 415, 422)  # statuses that no request of these users should get
ID = re.compile(r"/[0-9a-f]{8}-[0-9a-f-]{27}")


class LocustPoolManager(urllib3.PoolManager):
    """A connection pool that reports each request to locust, with the status in its name."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(maxsize=512, retries=False)
        self._environment = environment
        self._start = time.perf_counter()
        self.reserves: list[tuple[float, bool]] = []  # seconds since the first request, and whether it got the seat

    def request(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request, report it and return the response."""
        name, start = ID.sub("/{id}", urllib3.util.parse_url(url).path or "/"), time.perf_counter()
        try:
            response = super().request(method, url, *args, **options)
        except urllib3.exceptions.HTTPError as error:
            self._report(method, name, start, 0, error)
            raise
        if name == "/api/reserve" and response.status in (200, 409):
            self.reserves.append((time.perf_counter() - self._start, response.status == 200))
        is_failure = response.status >= 500 or response.status in CLIENT_ERRORS
        failure = RuntimeError(response.data[:200].decode(errors="replace")) if is_failure else None
        self._report(method, f"{name} → {response.status}", start, len(response.data), failure)
        return response

    def _report(self, method: str, name: str, start: float, size: int, failure: Exception | None) -> None:
        milliseconds = (time.perf_counter() - start) * 1000
        self._environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=milliseconds,
            response_length=size,
            exception=failure,
            context={},
        )


@dataclass
class HotSeat:
    """The seat of a stampede. At most one user may win it."""

    seat: str
    wins: int = 0


class Sale:
    """The state that all simulated users of one locust process share: customers, seats, tickets and counts."""

    def __init__(self, environment: Environment) -> None:
        stack = runtime.attach(quiet=True)
        self._customers: list[Person] = []
        self.counts: Counter[str] = Counter()
        self.tickets: deque[tuple[Person, str, str]] = deque()  # owner, seat, order
        self.system = TestSystem(stack, SeatPool())
        self.system._pool = self._pool = LocustPoolManager(environment)  # so that locust sees every request
        self.system.set_limits(0, 0)  # each simulated user buys many tickets
        seats = self._find_seats()
        random.shuffle(seats)
        self._stampede_seats = deque(seats[::4])  # separate, so that only stampedes win them
        self._kept_for_stampedes = frozenset(self._stampede_seats)
        self._calm_seats = [seat for seat in seats if seat not in self._kept_for_stampedes]
        self._hot_seats: list[HotSeat] = []
        self.hot_seat = self._next_hot_seat()

    def _find_seats(self) -> list[str]:
        if path := os.environ.get(SEATS):
            return list(json.loads(Path(path).read_text()))
        sql = "SELECT seat_id::text FROM seats WHERE event_id = %s AND status = 'AVAILABLE'"
        return [row["seat_id"] for row in self.system.rows("seats_db", sql, EVENT)]

    def take_customer(self) -> Person:
        """Return a customer with plenty of credits, each only once."""
        if not self._customers:
            self._customers = self.system.people(CUSTOMERS_AT_ONCE, MANY_CREDITS)
        return self._customers.pop()

    def pick_seat(self) -> str:
        """Return a random seat. Seats at the front of the list are picked more often."""
        return self._calm_seats[int(len(self._calm_seats) * random.betavariate(1, 3))]

    def pay(self, buyer: Person, order: str) -> bool:
        """Pay an order, and return whether it was paid."""
        is_paid = buyer.pay(order).status == 200
        self.counts["paid" if is_paid else "not paid"] += 1
        return is_paid

    def add_refunded_seat(self, seat: str) -> None:
        """Count a refund. If the seat was kept for stampedes, make it available to them again."""
        self.counts["refunded"] += 1
        if seat in self._kept_for_stampedes:
            self._stampede_seats.append(seat)

    def record_win(self, hot_seat: HotSeat) -> None:
        """Count a hold of the hot seat, and choose the next hot seat."""
        hot_seat.wins += 1
        if hot_seat is self.hot_seat:
            self.hot_seat = self._next_hot_seat()

    def _next_hot_seat(self) -> HotSeat | None:
        if not self._stampede_seats:
            return None
        self._hot_seats.append(HotSeat(self._stampede_seats.popleft()))
        return self._hot_seats[-1]

    # ── the end

    def find_violations(self) -> list[str]:
        """Wait until the system is idle, return what is wrong, and write the results to `LOAD_REPORT`."""
        connect = self.system.connect
        wait_for(lambda: not invariants.find_violations(connect), REST_SECONDS)
        found = invariants.find_violations(connect)
        found += [f"hot seat {hot.seat} had {hot.wins} holders" for hot in self._hot_seats if hot.wins > 1]
        found += ["two gates admitted one ticket"] * self.counts["admitted twice"]
        if path := os.environ.get(REPORT):
            counts = {**self.counts, "hot seats won": sum(hot.wins for hot in self._hot_seats)}
            report = {"counts": counts, "violations": found, "reserves": self._pool.reserves}
            Path(path).write_text(json.dumps(report))
        return found
