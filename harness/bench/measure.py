"""Each measurement of the table: what is asked of whom, how often, and what of it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg2

from harness.bench import floor
from harness.bench.drive import Load, drive
from harness.bench.ground import Ground
from harness.stack import Stack
from harness.strategies import BLOCKING, NOWAIT, against_a_holder, percentile, table
from services.chassis.tokens import Credential

IN_FLIGHT, CLIENTS, CROWD = 8, 16, 100
EXPECTED = {"ReserveSeat": 9000, "reserve": 1500, "purchase": 900, "scan": 2000}  # a second, more than will be reached
ORCHESTRATOR, INVENTORY = "orchestrator-service", "inventory-service"
HOLD_SECONDS, LOSERS, ROUNDS = 0.2, 16, 5


@dataclass(frozen=True)
class Bench:
    """Measures one stack. Every figure is the median of `repeats` runs of `seconds` each."""

    stack: Stack
    ground: Ground
    seconds: float
    repeats: int

    def floor(self) -> float:
        """Bare holds a second."""
        return median(floor.floor(self.stack, self.seconds) for _ in range(self.repeats))

    def reserve_seat(self) -> Load:
        """ReserveSeat straight at Inventory, 8 in flight over all of its processes."""
        secret = self.stack.env(ORCHESTRATOR)["INTERNAL_JWT_SECRET"]
        credential = Credential(ORCHESTRATOR, secret).header()
        replicas = [name for name in self.stack.names if name.startswith(INVENTORY)]
        address = ",".join(self.stack.address(name, 50051) for name in replicas)

        def once() -> Load:
            work = [
                [b, s, str(uuid4())]
                for (_, s), b in zip(self._orders("ReserveSeat", 5000), self._buyers(), strict=False)
            ]
            return self._drive(address, "ReserveSeat", work, IN_FLIGHT, credential)

        return self._median(once)

    def reserve(self, an_event: int) -> Load:
        """Reserve over HTTP at the orchestrator, in events of `an_event` seats."""
        return self._median(
            lambda: self._drive(self._orchestrator, "reserve", self._orders("reserve", an_event), CLIENTS)
        )

    def purchase(self, an_event: int) -> Load:
        """Reserve and pay, likewise."""
        return self._median(
            lambda: self._drive(self._orchestrator, "purchase", self._orders("purchase", an_event), CLIENTS)
        )

    def scan(self) -> Load:
        """Scans at the gate that admit."""

        def once() -> Load:
            return self._drive(self._orchestrator, "scan", self.ground.scans(self._expected("scan")), CLIENTS)

        return self._median(once)

    def crowd(self) -> tuple[float, float]:
        """100 clients at once for one seat: the losers' p99 and, for comparison, a lone client's p50, in seconds."""
        tries = [self._crowd_once() for _ in range(self.repeats)]
        return median(p99 for p99, _ in tries), median(p50 for _, p50 in tries)

    def _crowd_once(self) -> tuple[float, float]:
        alone = drive(
            self.stack,
            self._orchestrator,
            "reserve",
            self.ground.orders(200, 200),
            clients=1,
            seconds=60,
            once=True,
            processes=1,
        )
        seat = self.ground.seats(1, 1)[0]
        work = [[self.ground.tokens[n % len(self.ground.tokens)], seat] for n in range(CROWD)]
        crowd = drive(self.stack, self._orchestrator, "reserve", work, clients=CROWD, seconds=60, once=True)
        if crowd.outcomes.get("ok") != 1 or set(crowd.outcomes) != {"ok", "409 SEAT_UNAVAILABLE"}:
            raise AssertionError(f"a hot seat was answered {dict(crowd.outcomes)}")
        return crowd.percentile(0.99), alone.percentile(0.5)

    def event_page(self) -> Load:
        """An event with 1,000 seats, of which one changes ten times a second."""
        event = str(uuid4())
        seats = self.ground.event_seats([event], 1000)
        over = Event()
        thread = Thread(target=self._keep_changing, args=(seats, over), daemon=True)
        thread.start()
        try:
            work = [[self.ground.tokens[0], f"/api/events/{event}"]] * int(5000 * self.seconds)
            return self._median(lambda: self._drive(self._address("event-service", 5002), "get", work, IN_FLIGHT))
        finally:
            over.set()
            thread.join()

    def _keep_changing(self, seats: Sequence[str], over: Event) -> None:
        sql = "UPDATE seats SET updated_at = statement_timestamp() WHERE seat_id = %s"
        connection = self.ground.connect("seats_db")
        with connection.cursor() as cursor:
            at = 0
            while not over.wait(0.1):
                cursor.execute(sql, (seats[at % len(seats)],))
                at += 1
        connection.close()

    def losers(self) -> tuple[float, float]:
        """The losers' p99 under NOWAIT and under plain FOR UPDATE, in seconds, while a holder sleeps 200 ms."""
        connect = partial(psycopg2.connect, self.stack.admin_dsn("postgres"))
        p99 = []
        with table(connect, 2 * ROUNDS):
            for number, strategy in enumerate((NOWAIT, BLOCKING)):
                seats = range(number * ROUNDS + 1, (number + 1) * ROUNDS + 1)
                lost = against_a_holder(connect, strategy, LOSERS, seats, HOLD_SECONDS)
                p99.append(percentile([buy.seconds for buy in lost], 0.99))
        return p99[0], p99[1]

    # ── shared

    @property
    def _orchestrator(self) -> str:
        return self._address(ORCHESTRATOR, 5003)

    def _address(self, service: str, port: int) -> str:
        return self.stack.address(service, port)

    def _expected(self, verb: str) -> int:
        return int(EXPECTED[verb] * self.seconds)

    def _orders(self, verb: str, an_event: int) -> list[list[str]]:
        return self.ground.orders(self._expected(verb), an_event)

    def _buyers(self) -> list[str]:
        return self.ground.buyers * (self._expected("ReserveSeat") // len(self.ground.buyers) + 1)

    def _drive(self, address: str, verb: str, work: Sequence[Any], clients: int, credential: str = "") -> Load:
        return drive(self.stack, address, verb, work, clients=clients, seconds=self.seconds, credential=credential)

    def _median(self, once: Callable[[], Load]) -> Load:
        """The run whose rate is the median."""
        return sorted((once() for _ in range(self.repeats)), key=lambda load: load.rate)[self.repeats // 2]
