"""Runs of one kind of work against one system. `make bench` repeats them in rounds, and `AGAINST` alternates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg2

from harness.bench.fixtures import Fixtures
from harness.bench.leftovers import Leftovers
from harness.bench.load import ONCE
from harness.bench.load_generator import CLIENTS, Load, LoadGenerator
from harness.bench.locking_strategies import BLOCKING, NOWAIT, create_seats, percentile, sell_during_lock
from harness.bench.meter import CpuTimeMeter, Meter
from harness.bench.signing import sign_credential
from harness.bench.system import EVENT, GATEWAY, INVENTORY, ORCHESTRATOR, System, find_processes, join_addresses
from harness.errors import StackError

Work = Sequence[Any]
Run = Callable[[], Load]
"""Work that was created before and is not yet done. Each one runs once."""

GRPC_CLIENTS, HOT_SEAT_CLIENTS, SINGLE_CLIENT_ITEMS = 8, 100, 100
MAX_RATES = {"ReserveSeat": 8000, "reserve": 1500, "purchase": 900, "scan": 2000, "visit": 400, "get": 5000}
"""Items per second, which no run reaches."""
HOLD_SECONDS, LOSERS, LOCKED_SEATS = 0.2, 16, 5


@dataclass(frozen=True)
class Runs:
    """Creates runs of `seconds` each. The inserts of their data come first, so that no run includes them.

    `meter` replaces the default, which reads the CPU time of the system. With `is_complete`, a run ends after the last
    notice and wake-up message of its sales. Otherwise it ends with the last response.
    """

    system: System
    fixtures: Fixtures
    leftovers: Leftovers
    load_generator: LoadGenerator
    seconds: float
    meter: Meter | None = None
    is_complete: bool = False

    def reserve_seat(self, processes: int = 1) -> Run:
        """Call `ReserveSeat` of so many processes of Inventory, with 8 clients."""
        credential = sign_credential(self.system)
        seats, buyers = self.fixtures.take_seats(self._max_items("ReserveSeat"), 5000), cycle(self.fixtures.buyers)
        work = [[buyer, seat, str(uuid4())] for seat, buyer in zip(seats, buyers, strict=False)]
        address = join_addresses(self.system, INVENTORY, processes)
        return partial(self._run, address, "ReserveSeat", work, clients=GRPC_CLIENTS, credential=credential)

    def reserve(self, event_size: int) -> Run:
        """Send POST /api/reserve to the orchestrator, for seats of events of this size."""
        work = self.fixtures.create_purchases(self._max_items("reserve"), event_size)
        return partial(self._run, self._orchestrators(), "reserve", work)

    def purchase(self, event_size: int, clients: int = CLIENTS, orchestrators: int = 1) -> Run:
        """Reserve and pay at so many processes of the orchestrator."""
        work = self.fixtures.create_purchases(self._max_items("purchase"), event_size)
        return partial(self._run, self._orchestrators(orchestrators), "purchase", work, clients=clients)

    def scan(self) -> Run:
        """Scan tickets that admit."""
        work = self.fixtures.create_scans(self._max_items("scan"))
        return partial(self._run, self._orchestrators(), "scan", work)

    def visit(self, event_size: int) -> Run:
        """Do what visitors of a sale do, through the gateway."""
        work = self.fixtures.create_visits(self._max_items("visit"), event_size)
        return partial(self._run, self.system.address(GATEWAY, 8000), "visit", work)

    def read_balance(self) -> Run:
        """Read balances."""
        work = [[token, "/api/credits/balance"] for token in self.fixtures.tokens]
        work = work * (self._max_items("get") // len(work) + 1)
        return partial(self._run, self._orchestrators(), "get", work)

    def read_event(self, event: str) -> Run:
        """Send GET /api/events/{id}."""
        work = [[self.fixtures.tokens[0], f"/api/events/{event}"]] * self._max_items("get")
        return partial(self._run, join_addresses(self.system, EVENT), "get", work)

    @contextmanager
    def changing_event(self) -> Iterator[str]:
        """Yield an event of 1,000 seats, of which one changes ten times a second."""
        event, stop = str(uuid4()), Event()
        seats = self.fixtures.create_events([event], 1000)
        thread = Thread(target=self._change_seats, args=(seats, stop), daemon=True)
        thread.start()
        try:
            yield event
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

    def try_hot_seat(self) -> tuple[Load, Load]:
        """Let 100 clients reserve one seat at once, and before that one client other seats. Return both loads."""
        run = partial(self._run, self._orchestrators(), "reserve", mode=ONCE)
        single = run(self.fixtures.create_purchases(SINGLE_CLIENT_ITEMS, SINGLE_CLIENT_ITEMS), clients=1)
        (seat,) = self.fixtures.take_seats(1, 1)
        tokens = self.fixtures.tokens
        work = [[tokens[n % len(tokens)], seat] for n in range(HOT_SEAT_CLIENTS)]
        contended = run(work, clients=HOT_SEAT_CLIENTS)
        if contended.outcomes.get("ok") != 1 or set(contended.outcomes) != {"ok", "409 SEAT_UNAVAILABLE"}:
            raise StackError(f"unexpected responses for a hot seat: {dict(contended.outcomes)}")
        return contended, single

    def lose_to_a_lock(self) -> tuple[float, float]:
        """Return the p99 of losers under NOWAIT and FOR UPDATE in seconds, while the row is locked for 200 ms."""
        connect = partial(psycopg2.connect, self.system.admin_dsn("postgres"))
        p99 = []
        with create_seats(connect, 2 * LOCKED_SEATS):
            for number, strategy in enumerate((NOWAIT, BLOCKING)):
                seats = range(number * LOCKED_SEATS + 1, (number + 1) * LOCKED_SEATS + 1)
                lost = sell_during_lock(connect, strategy, LOSERS, seats, HOLD_SECONDS)
                p99.append(percentile([result.seconds for result in lost], 0.99))
        return p99[0], p99[1]

    def _orchestrators(self, processes: int = 1) -> str:
        return join_addresses(self.system, ORCHESTRATOR, processes)

    def _max_items(self, operation: str) -> int:
        return int(MAX_RATES[operation] * self.seconds)

    def _run(self, address: str, operation: str, work: Work, *, clients: int = CLIENTS, **options: Any) -> Load:
        is_sale = self.is_complete and operation == "purchase"
        load = self.load_generator.run(
            address,
            operation,
            work,
            meter=self.meter or CpuTimeMeter(find_processes(self.system)),
            clients=clients,
            seconds=self.seconds,
            wait_until_idle=self.leftovers.wait_for_all if is_sale else self.leftovers.wait_for_notices,
            **options,
        )
        self.leftovers.prevent_expiry()
        return load
