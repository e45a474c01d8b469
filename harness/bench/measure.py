"""The measurements of the bench: rates relative to the SQL baseline, and CPU relative to the empty route."""

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
from harness.bench.empty_route import EmptyRoute
from harness.bench.fixtures import Fixtures
from harness.bench.load_generator import CLIENTS, Load, LoadGenerator, service_processes
from harness.bench.locking_strategies import BLOCKING, NOWAIT, create_seats, percentile, sell_during_lock
from harness.bench.meter import Meter, open_meter
from harness.errors import StackError
from harness.runtime.stack import Stack
from services.chassis.keys import SigningKey
from services.chassis.tokens import Credential

Work = Sequence[Any]

GRPC_CLIENTS, HOT_SEAT_CLIENTS, SINGLE_CLIENT_ITEMS = 8, 100, 100
MAX_RATES = {"ReserveSeat": 8000, "reserve": 1500, "purchase": 900, "scan": 2000}  # items per second, never reached
ORCHESTRATOR, INVENTORY = "orchestrator-service", "inventory-service"
HOLD_SECONDS, LOSERS, ROUNDS = 0.2, 16, 5


@dataclass(frozen=True)
class Rate:
    """The result of several runs of one kind of work.

    `relative` is the median rate as a share of the SQL baseline. `load` is that run, and `sql_baseline` is its
    baseline in holds per second. `share` is the median rate as a share of the mean over all kinds in the same round.
    """

    relative: float
    share: float
    load: Load
    sql_baseline: float


@dataclass(frozen=True)
class Cost:
    """The CPU cost of one work item and of one empty route, both in `unit`."""

    load: Load
    empty_route: float
    unit: str

    @property
    def relative(self) -> float:
        """The cost as a multiple of the empty route."""
        return self.load.cost / self.empty_route


@dataclass(frozen=True)
class Bench:
    """Measures one stack. Each rate is the median of `repeats` runs of `seconds` each.

    The SQL baseline is measured for one second before and after each run, because other load on the machine varies.
    """

    stack: Stack
    fixtures: Fixtures
    load_generator: LoadGenerator
    empty_route: EmptyRoute
    seconds: float
    repeats: int

    def measure_reserve_seat(self) -> Rate:
        """Measure `ReserveSeat` calls to all processes of Inventory, with 8 clients."""
        key = SigningKey.parse(self.stack.env(ORCHESTRATOR)["PRIVATE_KEY"])
        credential = Credential(ORCHESTRATOR, key, INVENTORY).header()
        replicas = [name for name in self.stack.names if name.startswith(INVENTORY)]
        address = ",".join(self.stack.address(name, 50051) for name in replicas)

        def create_work() -> list[list[str]]:
            seats = self.fixtures.take_seats(self._max_items("ReserveSeat"), 5000)
            buyers = cycle(self.fixtures.buyers)
            return [[buyer, seat, str(uuid4())] for seat, buyer in zip(seats, buyers, strict=False)]

        run = partial(self._run, address, "ReserveSeat", clients=GRPC_CLIENTS, credential=credential)
        (rate,) = self._measure_rates([create_work], run)
        return rate

    def measure_reserves(self, *sizes: int) -> list[Rate]:
        """Measure POST /api/reserve at the orchestrator, for events of each size in turn."""
        return self._measure_purchases("reserve", sizes)

    def measure_purchases(self, *sizes: int) -> list[Rate]:
        """Measure a reserve and its payment, for events of each size in turn."""
        return self._measure_purchases("purchase", sizes)

    def measure_scans(self) -> Rate:
        """Measure scans that admit."""
        (rate,) = self._measure_at_orchestrator("scan", [self._create_scans])
        return rate

    def measure_purchase_cost(self, size: int) -> Cost:
        """Measure the CPU of a reserve and its payment, including the notices in the outbox."""
        work = self.fixtures.create_purchases(self._max_items("purchase"), size)
        return self._measure_cost(self._orchestrator, "purchase", work)

    def measure_scan_cost(self) -> Cost:
        """Measure the CPU of a scan that admits."""
        return self._measure_cost(self._orchestrator, "scan", self._create_scans())

    def measure_hot_seat(self) -> tuple[float, float]:
        """Return the p99 of 100 concurrent reserves of one seat, and the p50 of a single client, in seconds."""
        tries = [self._try_hot_seat() for _ in range(self.repeats)]
        return median(p99 for p99, _ in tries), median(p50 for _, p50 in tries)

    def _try_hot_seat(self) -> tuple[float, float]:
        run = partial(self.load_generator.run, self._orchestrator, "reserve", seconds=60, once=True)
        single = run(self.fixtures.create_purchases(SINGLE_CLIENT_ITEMS, SINGLE_CLIENT_ITEMS), clients=1)
        (seat,) = self.fixtures.take_seats(1, 1)
        tokens = self.fixtures.tokens
        work = [[tokens[n % len(tokens)], seat] for n in range(HOT_SEAT_CLIENTS)]
        contended = run(work, clients=HOT_SEAT_CLIENTS)
        if contended.outcomes.get("ok") != 1 or set(contended.outcomes) != {"ok", "409 SEAT_UNAVAILABLE"}:
            raise StackError(f"unexpected responses for a hot seat: {dict(contended.outcomes)}")
        return contended.percentile(0.99), single.percentile(0.5)

    def measure_event_cost(self) -> Cost:
        """Measure the CPU of GET /api/events/{id} with 1,000 seats, while a seat changes ten times a second."""
        event = str(uuid4())
        seats = self.fixtures.create_events([event], 1000)
        stop = Event()
        thread = Thread(target=self._change_seats, args=(seats, stop), daemon=True)
        thread.start()
        try:
            work = [[self.fixtures.tokens[0], f"/api/events/{event}"]] * int(5000 * self.seconds)
            return self._measure_cost(self.stack.address("event-service", 5002), "get", work)
        finally:
            stop.set()
            thread.join()

    def _change_seats(self, seats: Sequence[str], stop: Event) -> None:
        sql = "UPDATE seats SET updated_at = statement_timestamp() WHERE seat_id = %s"
        connection = self.fixtures.connect("seats_db")
        with connection.cursor() as cursor:
            for seat in cycle(seats):
                if stop.wait(0.1):
                    break
                cursor.execute(sql, (seat,))
        connection.close()

    def measure_losers(self) -> tuple[float, float]:
        """Return the p99 of losers under NOWAIT and FOR UPDATE in seconds, while the row is locked for 200 ms."""
        connect = partial(psycopg2.connect, self.stack.admin_dsn("postgres"))
        p99 = []
        with create_seats(connect, 2 * ROUNDS):
            for number, strategy in enumerate((NOWAIT, BLOCKING)):
                seats = range(number * ROUNDS + 1, (number + 1) * ROUNDS + 1)
                lost = sell_during_lock(connect, strategy, LOSERS, seats, HOLD_SECONDS)
                p99.append(percentile([result.seconds for result in lost], 0.99))
        return p99[0], p99[1]

    # ── shared

    @property
    def _orchestrator(self) -> str:
        return self.stack.address(ORCHESTRATOR, 5003)

    def _max_items(self, operation: str) -> int:
        return int(MAX_RATES[operation] * self.seconds)

    def _create_scans(self) -> Work:
        return self.fixtures.create_scans(self._max_items("scan"))

    def _measure_purchases(self, operation: str, sizes: Sequence[int]) -> list[Rate]:
        number = self._max_items(operation)
        kinds = [partial(self.fixtures.create_purchases, number, size) for size in sizes]
        return self._measure_at_orchestrator(operation, kinds)

    def _measure_at_orchestrator(self, operation: str, kinds: Sequence[Callable[[], Work]]) -> list[Rate]:
        return self._measure_rates(kinds, partial(self._run, self._orchestrator, operation))

    def _run(
        self,
        address: str,
        operation: str,
        work: Work,
        *,
        clients: int = CLIENTS,
        credential: str = "",
        meter: Meter | None = None,
    ) -> Load:
        return self.load_generator.run(
            address,
            operation,
            work,
            clients=clients,
            seconds=self.seconds,
            credential=credential,
            meter=meter,
            wait_until_idle=self.fixtures.wait_until_idle,
        )

    def _measure_cost(self, address: str, operation: str, work: Work) -> Cost:
        """Measure in a separate run, because counting instructions slows the processes. Raises StackError."""
        empty_route, unit = self.empty_route.measure_cost()
        with open_meter(service_processes(self.stack)) as meter:
            if meter.unit != unit:
                raise StackError(f"empty route measured in {unit}, the system in {meter.unit}: run the bench again")
            return Cost(self._run(address, operation, work, meter=meter), empty_route, meter.unit)

    def _measure_rates(self, kinds: Sequence[Callable[[], Work]], run: Callable[[Work], Load]) -> list[Rate]:
        """Return the rate of each kind of work.

        All work is created before the first run. The kinds take turns, so that other load on the machine affects all
        of them.
        """
        rounds = [[create_work() for create_work in kinds] for _ in range(self.repeats)]
        before, results = self._measure_sql_baseline(), []
        for works in rounds:
            turn = []
            for work in works:
                load, after = run(work), self._measure_sql_baseline()
                turn.append((load, (before + after) / 2))
                before = after
            results.append(turn)
        return [summarize(results, kind) for kind in range(len(kinds))]

    def _measure_sql_baseline(self) -> float:
        return sql_baseline.measure_rate(self.stack, self.fixtures.rows)


def summarize(rounds: Sequence[Sequence[tuple[Load, float]]], kind: int) -> Rate:
    """Summarize the runs of one kind. Each round has one run of every kind, with its SQL baseline."""

    def relative(run: tuple[Load, float]) -> float:
        load, baseline = run
        return load.rate / baseline

    runs = sorted((turn[kind] for turn in rounds), key=relative)
    load, baseline = runs[len(runs) // 2]
    share = median(turn[kind][0].rate / mean(load.rate for load, _ in turn) for turn in rounds)
    return Rate(load.rate / baseline, share, load, baseline)
