"""What the users of a load share: who they are, which seats they want, who won what; and the last look at it all."""

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

SEATS = "LOAD_SEATS"  # in the environment: a JSON file of the seats to use; else all that are AVAILABLE
REPORT = "LOAD_REPORT"  # in the environment: where to write what came of it
REST_SECONDS = float(os.environ.get("LOAD_REST_SECONDS", "20"))  # for sagas and sweepers to come to rest
PEOPLE_AT_ONCE = 50
RICH = "100000.00"
WRONGLY_ASKED = (400, 401, 403, 404, 405, 413, 415, 422)  # no user of ours asks for that
ID = re.compile(r"/[0-9a-f]{8}-[0-9a-f-]{27}")


class Measured(urllib3.PoolManager):
    """A pool that tells locust of every call: winners and losers are different rows of its table."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(maxsize=512, retries=False)
        self._environment = environment
        self._began = time.perf_counter()
        self.reserves: list[tuple[float, bool]] = []  # when it was answered, in seconds from the first call; won?

    def request(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """As ever."""
        name, started = ID.sub("/{id}", urllib3.util.parse_url(url).path or "/"), time.perf_counter()
        try:
            answer = super().request(method, url, *args, **options)
        except urllib3.exceptions.HTTPError as error:
            self._tell(method, name, started, 0, error)
            raise
        if name == "/api/reserve" and answer.status in (200, 409):
            self.reserves.append((time.perf_counter() - self._began, answer.status == 200))
        bad = answer.status >= 500 or answer.status in WRONGLY_ASKED
        failure = RuntimeError(answer.data[:200].decode(errors="replace")) if bad else None
        self._tell(method, f"{name} → {answer.status}", started, len(answer.data), failure)
        return answer

    def _tell(self, method: str, name: str, started: float, size: int, failure: Exception | None) -> None:
        milliseconds = (time.perf_counter() - started) * 1000
        self._environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=milliseconds,
            response_length=size,
            exception=failure,
            context={},
        )


@dataclass
class Hot:
    """A seat that everybody wants; whoever holds it first is its only holder."""

    seat: str
    wins: int = 0


class Crowd:
    """Shared by all greenlets of one process."""

    def __init__(self, environment: Environment) -> None:
        stack = runtime.attach(quiet=True)
        self._people: list[Person] = []
        self.tally: Counter[str] = Counter()
        self.tickets: deque[tuple[Person, str, str]] = deque()  # owner, seat, order
        self.system = TestSystem(stack, SeatPool())
        self.system._pool = self._measured = Measured(environment)  # everybody in system speaks over it
        seats = self._seats()
        random.shuffle(seats)
        self._stampeded = deque(seats[::4])  # kept apart, so that nobody else wins them
        self._apart = frozenset(self._stampeded)
        self._wanted = [seat for seat in seats if seat not in self._apart]
        self._hots: list[Hot] = []
        self.hot = self._next_hot()

    def _seats(self) -> list[str]:
        if given := os.environ.get(SEATS):
            return list(json.loads(Path(given).read_text()))
        sql = "SELECT seat_id::text FROM seats WHERE event_id = %s AND status = 'AVAILABLE'"
        return [row["seat_id"] for row in self.system.rows("seats_db", sql, EVENT)]

    def somebody(self) -> Person:
        """A customer with plenty of credits, whom nobody else is."""
        if not self._people:
            self._people = self.system.people(PEOPLE_AT_ONCE, RICH)
        return self._people.pop()

    def popular(self) -> str:
        """A seat to try for: some are wanted by nearly everybody."""
        return self._wanted[int(len(self._wanted) * random.betavariate(1, 3))]

    def bought(self, buyer: Person, order: str) -> bool:
        """Pay for a hold."""
        paid = buyer.pay(order).status == 200
        self.tally["paid" if paid else "not paid"] += 1
        return paid

    def came_free(self, seat: str) -> None:
        """A ticket was taken back."""
        self.tally["refunded"] += 1
        if seat in self._apart:
            self._stampeded.append(seat)

    def won(self, hot: Hot) -> None:
        """A hot seat has a holder: from now on another one is hot."""
        hot.wins += 1
        if hot is self.hot:
            self.hot = self._next_hot()

    def _next_hot(self) -> Hot | None:
        if not self._stampeded:
            return None
        self._hots.append(Hot(self._stampeded.popleft()))
        return self._hots[-1]

    # ── the end

    def judge(self) -> list[str]:
        """Wait until everything is at rest; what does not hold then. Written to `LOAD_REPORT`."""
        connect = self.system.connect
        wait_for(lambda: not invariants.find_violations(connect), REST_SECONDS)
        found = invariants.find_violations(connect)
        found += [f"hot seat {hot.seat} had {hot.wins} holders" for hot in self._hots if hot.wins > 1]
        found += ["two gates admitted one ticket"] * self.tally["admitted twice"]
        if report := os.environ.get(REPORT):
            tally = {**self.tally, "hot seats won": sum(hot.wins for hot in self._hots)}
            said = {"tally": tally, "broken": found, "reserves": self._measured.reserves}
            Path(report).write_text(json.dumps(said))
        return found
