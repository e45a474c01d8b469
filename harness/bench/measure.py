"""Each measurement of the table: what is asked of whom, how often, and what of it counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from statistics import median
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg2

from harness.bench import floor
from harness.bench.drive import Crew, Load
from harness.bench.ground import Ground
from harness.errors import StackError
from harness.stack import Stack
from harness.strategies import BLOCKING, NOWAIT, against_a_holder, percentile, table
from services.chassis.tokens import Credential

Work = Sequence[Any]

IN_FLIGHT, CLIENTS, CROWD, ALONE = 8, 16, 100, 100
EXPECTED = {"ReserveSeat": 8000, "reserve": 1500, "purchase": 900, "scan": 2000}  # a second, more than will be reached
ORCHESTRATOR, INVENTORY = "orchestrator-service", "inventory-service"
FLOOR_SECONDS = 1.0
HOLD_SECONDS, LOSERS, ROUNDS = 0.2, 16, 5


def loop_ms() -> float:
    """CPU milliseconds of a loop of a million steps: how fast this machine is just now, for figures in ms."""
    began, total = time.process_time(), 0
    for step in range(1_000_000):
        total += step * step
    return (time.process_time() - began) * 1000


@dataclass(frozen=True)
class Bench:
    """Measures one stack. Each figure is the median of `repeats` runs of `seconds` each.

    What is compared with the floor has it measured right before and right after each run: the machine is not the same
    all the time.
    """

    stack: Stack
    ground: Ground
    crew: Crew
    seconds: float
    repeats: int

    def floor(self) -> float:
        """Bare holds a second, now."""
        return floor.floor(self.stack, FLOOR_SECONDS)

    def reserve_seat(self) -> Load:
        """ReserveSeat straight at Inventory, 8 in flight over all of its processes."""
        secret = self.stack.env(ORCHESTRATOR)["INTERNAL_JWT_SECRET"]
        credential = Credential(ORCHESTRATOR, secret).header()
        replicas = [name for name in self.stack.names if name.startswith(INVENTORY)]
        address = ",".join(self.stack.address(name, 50051) for name in replicas)

        def work() -> list[list[str]]:
            seats = self.ground.seats(self._expected("ReserveSeat"), 5000)
            return [[buyer, seat, str(uuid4())] for seat, buyer in zip(seats, cycle(self.ground.buyers), strict=False)]

        (load,) = self._beside_floor(
            [work], lambda work: self._drive(address, "ReserveSeat", work, IN_FLIGHT, credential)
        )
        return load

    def reserve(self, *sizes: int) -> list[Load]:
        """Reserve over HTTP at the orchestrator, in events of each of these sizes, by turns."""
        return self._orders("reserve", sizes)

    def purchase(self, *sizes: int) -> list[Load]:
        """Reserve and pay, likewise."""
        return self._orders("purchase", sizes)

    def scan(self) -> Load:
        """Scans at the gate that admit."""
        (load,) = self._at_orchestrator("scan", [lambda: self.ground.scans(self._expected("scan"))])
        return load

    def crowd(self) -> tuple[float, float]:
        """100 clients at once for one seat: the losers' p99 and, for comparison, a lone client's p50, in seconds."""
        tries = [self._crowd_once() for _ in range(self.repeats)]
        return median(p99 for p99, _ in tries), median(p50 for _, p50 in tries)

    def _crowd_once(self) -> tuple[float, float]:
        drive = partial(self.crew.drive, self._orchestrator, "reserve", seconds=60, once=True)
        alone = drive(self.ground.orders(ALONE, ALONE), clients=1)
        (seat,) = self.ground.seats(1, 1)
        crowd = drive([[self.ground.tokens[n % len(self.ground.tokens)], seat] for n in range(CROWD)], clients=CROWD)
        if crowd.outcomes.get("ok") != 1 or set(crowd.outcomes) != {"ok", "409 SEAT_UNAVAILABLE"}:
            raise StackError(f"a hot seat was answered {dict(crowd.outcomes)}")
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
            address = self.stack.address("event-service", 5002)
            loads = [self._drive(address, "get", work, IN_FLIGHT) for _ in range(self.repeats)]
            return sorted(loads, key=lambda load: load.cpu)[self.repeats // 2]
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
        return self.stack.address(ORCHESTRATOR, 5003)

    def _expected(self, verb: str) -> int:
        return int(EXPECTED[verb] * self.seconds)

    def _orders(self, verb: str, sizes: Sequence[int]) -> list[Load]:
        expected = self._expected(verb)
        return self._at_orchestrator(verb, [partial(self.ground.orders, expected, size) for size in sizes])

    def _at_orchestrator(self, verb: str, kinds: Sequence[Callable[[], Work]]) -> list[Load]:
        return self._beside_floor(kinds, lambda work: self._drive(self._orchestrator, verb, work, CLIENTS))

    def _drive(self, address: str, verb: str, work: Work, clients: int, credential: str = "") -> Load:
        return self.crew.drive(address, verb, work, clients=clients, seconds=self.seconds, credential=credential)

    def _beside_floor(self, kinds: Sequence[Callable[[], Work]], run: Callable[[Work], Load]) -> list[Load]:
        """Of each kind of work the run whose ratio to the floor beside it is the median.

        All work is laid out before the first run, and the kinds take turns: what the machine does meanwhile, it does
        to all of them.
        """
        rounds = [[work() for work in kinds] for _ in range(self.repeats)]
        before, loads = self.floor(), []
        for works in rounds:
            for work in works:
                load, after = run(work), self.floor()
                loads.append(replace(load, floor=(before + after) / 2))
                before = after
        number = len(kinds)
        by_kind = [sorted(loads[kind::number], key=lambda load: load.ratio) for kind in range(number)]
        return [runs[self.repeats // 2] for runs in by_kind]
