"""Each measurement of the table: what is asked of whom, how often, and what of it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import mean, median
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg2

from harness.bench import sql_baseline
from harness.bench.empty_route import BareRoute
from harness.bench.fixtures import Ground
from harness.bench.load_generator import CLIENTS, Crew, Load, ours
from harness.bench.locking_strategies import BLOCKING, NOWAIT, against_a_holder, percentile, table
from harness.bench.meter import Meter, meter
from harness.errors import StackError
from harness.runtime.stack import Stack
from services.chassis.tokens import Credential

Work = Sequence[Any]

IN_FLIGHT, CROWD, ALONE = 8, 100, 100
EXPECTED = {"ReserveSeat": 8000, "reserve": 1500, "purchase": 900, "scan": 2000}  # a second, more than will be reached
ORCHESTRATOR, INVENTORY = "orchestrator-service", "inventory-service"
HOLD_SECONDS, LOSERS, ROUNDS = 0.2, 16, 5


@dataclass(frozen=True)
class Figure:
    """What several runs of one kind come to. Each figure is their median; `run` is the one of median `floors`.

    `floors` is the rate in floors, `share` the rate as a share of what the kinds of the same round did on average;
    `floor` is the floor beside that run, a second.
    """

    floors: float
    share: float
    run: Load
    floor: float


@dataclass(frozen=True)
class Cost:
    """What a piece of work costs in bare routes; `load` is the run that it was counted in, `route` one of those.

    Both are in `unit`.
    """

    load: Load
    route: float
    unit: str

    @property
    def routes(self) -> float:
        """So many bare routes."""
        return self.load.cost / self.route


@dataclass(frozen=True)
class Bench:
    """Measures one stack. Each rate is the median of `repeats` runs of `seconds` each.

    The floor is read right before and right after each run, for a second: the machine is not the same all the time.
    """

    stack: Stack
    ground: Ground
    crew: Crew
    route: BareRoute
    seconds: float
    repeats: int

    def reserve_seat(self) -> Figure:
        """ReserveSeat straight at Inventory, 8 in flight over all of its processes."""
        secret = self.stack.env(ORCHESTRATOR)["INTERNAL_JWT_SECRET"]
        credential = Credential(ORCHESTRATOR, secret).header()
        replicas = [name for name in self.stack.names if name.startswith(INVENTORY)]
        address = ",".join(self.stack.address(name, 50051) for name in replicas)

        def work() -> list[list[str]]:
            seats = self.ground.seats(self._expected("ReserveSeat"), 5000)
            return [[buyer, seat, str(uuid4())] for seat, buyer in zip(seats, cycle(self.ground.buyers), strict=False)]

        run = partial(self._drive, address, "ReserveSeat", clients=IN_FLIGHT, credential=credential)
        (only,) = self._paced([work], run)
        return only

    def reserve(self, *sizes: int) -> list[Figure]:
        """Reserve over HTTP at the orchestrator, in events of each of these sizes, by turns."""
        return self._orders("reserve", sizes)

    def purchase(self, *sizes: int) -> list[Figure]:
        """Reserve and pay, likewise."""
        return self._orders("purchase", sizes)

    def scan(self) -> Figure:
        """Scans at the gate that admit."""
        (only,) = self._at_orchestrator("scan", [self._scans])
        return only

    def cost_of_purchase(self, size: int) -> Cost:
        """Reserve and pay in events of this size, until everybody has been told."""
        return self._cost(self._orchestrator, "purchase", self.ground.orders(self._expected("purchase"), size))

    def cost_of_scan(self) -> Cost:
        """A scan that admits."""
        return self._cost(self._orchestrator, "scan", self._scans())

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

    def cost_of_event(self) -> Cost:
        """An event with 1,000 seats, of which one changes ten times a second."""
        event = str(uuid4())
        seats = self.ground.event_seats([event], 1000)
        over = Event()
        thread = Thread(target=self._keep_changing, args=(seats, over), daemon=True)
        thread.start()
        try:
            work = [[self.ground.tokens[0], f"/api/events/{event}"]] * int(5000 * self.seconds)
            return self._cost(self.stack.address("event-service", 5002), "get", work)
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

    def _scans(self) -> Work:
        return self.ground.scans(self._expected("scan"))

    def _orders(self, verb: str, sizes: Sequence[int]) -> list[Figure]:
        expected = self._expected(verb)
        return self._at_orchestrator(verb, [partial(self.ground.orders, expected, size) for size in sizes])

    def _at_orchestrator(self, verb: str, kinds: Sequence[Callable[[], Work]]) -> list[Figure]:
        return self._paced(kinds, partial(self._drive, self._orchestrator, verb))

    def _drive(
        self,
        address: str,
        verb: str,
        work: Work,
        *,
        clients: int = CLIENTS,
        credential: str = "",
        meter: Meter | None = None,
    ) -> Load:
        return self.crew.drive(
            address,
            verb,
            work,
            clients=clients,
            seconds=self.seconds,
            credential=credential,
            meter=meter,
            settled=self.ground.everybody_told,
        )

    def _cost(self, address: str, verb: str, work: Work) -> Cost:
        """Counted in a run of its own: counting is no part of the work. Raises StackError."""
        route, unit = self.route.cost()
        with meter(ours(self.stack)) as reading:
            if reading.unit != unit:
                raise StackError(f"a bare route was counted in {unit}, the system in {reading.unit}: run it again")
            return Cost(self._drive(address, verb, work, meter=reading), route, reading.unit)

    def _paced(self, kinds: Sequence[Callable[[], Work]], run: Callable[[Work], Load]) -> list[Figure]:
        """The figure of each kind of work.

        All work is laid out before the first run, and the kinds take turns: what the machine does meanwhile, it does
        to all of them.
        """
        rounds = [[work() for work in kinds] for _ in range(self.repeats)]
        before, done = self._floor(), []
        for works in rounds:
            turn = []
            for work in works:
                load, after = run(work), self._floor()
                turn.append((load, (before + after) / 2))
                before = after
            done.append(turn)
        return [figure(done, kind) for kind in range(len(kinds))]

    def _floor(self) -> float:
        return sql_baseline.floor(self.stack, self.ground.rows)


def figure(rounds: Sequence[Sequence[tuple[Load, float]]], kind: int) -> Figure:
    """What the runs of one kind come to; each round is a run of every kind, each with the floor beside it."""

    def floors(paced: tuple[Load, float]) -> float:
        load, beside = paced
        return load.rate / beside

    runs = sorted((turn[kind] for turn in rounds), key=floors)
    load, beside = middle = runs[len(runs) // 2]
    share = median(turn[kind][0].rate / mean(load.rate for load, _ in turn) for turn in rounds)
    return Figure(floors(middle), share, load, beside)
