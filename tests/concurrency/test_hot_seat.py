"""One seat that many clients reserve at once, and a seat whose row is locked: the refusal comes without a wait."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar

import pytest

from harness.bench.locking_strategies import LockWaitMonitor, percentile
from harness.report.charts import dots
from harness.runtime.ports import HOST
from tests.concurrency.callers import connect_inventory
from tests.concurrency.figures import Figures
from tests.concurrency.patched_service import run_patched
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = [pytest.mark.concurrency, pytest.mark.usefixtures("invariants")]

CLIENTS, SINGLE_CLIENT_RESERVES = 240, 25
CALLERS = 50
NO_WAIT_SECONDS = 0.9  # below lock_timeout, so a call that waits for the lock takes longer
T = TypeVar("T")


def measure(call: Callable[[], T]) -> Callable[[], tuple[T, float]]:
    """Wrap a call so that it returns its result and its seconds."""

    def run() -> tuple[T, float]:
        start = time.perf_counter()
        return call(), time.perf_counter() - start

    return run


def monitor_lock_waits(system: TestSystem) -> LockWaitMonitor:
    """Watch lock waits in the database of Inventory."""
    return LockWaitMonitor(system.stack.admin_dsn("seats_db"))


@pytest.mark.claim("protocols/grpc-and-nowait", "lock/loser-is-refused", "reserve/seat-unavailable")
def test_one_of_240_clients_gets_the_seat_and_none_waits(system: TestSystem, figures: Figures) -> None:
    first, *clients = system.people(CLIENTS + 1)
    single = [measure(partial(first.reserve, system.seat()))()[1] for _ in range(SINGLE_CLIENT_RESERVES)]
    seat = system.seat()
    with monitor_lock_waits(system) as lock_waits:
        results = run_concurrently([measure(partial(client.reserve, seat)) for client in clients])
    answers = [answer for answer, _ in results]
    lost = [seconds for answer, seconds in results if answer.status == 409]
    p50, p99 = (round(percentile(lost, share) * 1000, 1) for share in (0.5, 0.99))
    single_p50 = round(percentile(single, 0.5) * 1000, 1)
    latencies = {"losers' p50": p50, "losers' p99": p99}
    figures.add("hot seat", clients=CLIENTS, losers_p50_ms=p50, losers_p99_ms=p99, single_client_p50_ms=single_p50)
    chart = dots(f"{CLIENTS} clients, one seat", "ms", {"concurrent": latencies, "single client": {"p50": single_p50}})
    figures.save_picture("hot-seat", chart)
    assert outcomes(answers) == {"200": 1, "409 SEAT_UNAVAILABLE": CLIENTS - 1}
    (winner,) = [client for client, answer in zip(clients, answers, strict=True) if answer.status == 200]
    row = system.seat_row(seat)
    assert (row["status"], str(row["held_by_user_id"])) == ("HELD", winner.user_id)
    assert lock_waits.samples > 20
    assert lock_waits.max_waiting == 0, lock_waits.queries


@contextmanager
def lock_row(system: TestSystem, seat: str) -> Iterator[None]:
    """Lock the row of a seat on another connection until the block ends."""
    with closing(system.connect("seats_db")) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat,))
        yield
        connection.rollback()


def assert_refused_without_wait(system: TestSystem, address: str = "") -> list[float]:
    """Assert that Inventory refuses every caller at once while the row is locked. Returns the latencies in seconds."""
    seat = system.seat()
    with connect_inventory(system.stack, address) as caller:
        assert caller.call("GetSeatOwner", seat_id=seat).status == "AVAILABLE"
        with lock_row(system, seat), monitor_lock_waits(system) as lock_waits:
            results = run_concurrently([measure(partial(caller.reserve, seat))] * CALLERS)
        assert lock_waits.max_waiting == 0, f"{lock_waits.max_waiting} waited for the row: {lock_waits.queries}"
        assert Counter(code for code, _ in results) == {"SEAT_UNAVAILABLE": CALLERS}
        latencies = [seconds for _, seconds in results]
        assert max(latencies) < NO_WAIT_SECONDS
        assert caller.reserve(seat) == "OK", "the seat is available again after the lock"
        _release(system, seat)
    return latencies


def _release(system: TestSystem, seat: str) -> None:
    with connect_inventory(system.stack) as caller:
        caller.call("ReleaseSeat", seat_id=seat, hold_id=str(system.seat_row(seat)["hold_id"]))


@pytest.mark.claim("protocols/grpc-and-nowait", "lock/reserve-uses-nowait", "lock/loser-is-refused")
def test_inventory_refuses_a_locked_row_without_a_wait(system: TestSystem, figures: Figures) -> None:
    latencies = assert_refused_without_wait(system)
    figures.add(
        "row locked by another transaction", callers=CALLERS, p99_ms=round(percentile(latencies, 0.99) * 1e3, 1)
    )


@pytest.mark.negative_control
def test_callers_wait_for_the_row_without_nowait(system: TestSystem) -> None:
    patch = (
        "from services.inventory.store import holds\n"
        "assert ' NOWAIT' in holds._HOLD\n"
        "holds._HOLD = holds._HOLD.replace(' NOWAIT', '')"
    )
    with run_patched(system.stack, "inventory-service", patch) as ports:
        with pytest.raises(AssertionError, match="waited for the row"):
            assert_refused_without_wait(system, f"{HOST}:{ports['GRPC_PORT']}")


@pytest.mark.claim("lock/reserve-uses-nowait", "lock/loser-is-refused", "reserve/seat-unavailable")
def test_locked_row_is_a_409_at_the_gateway(system: TestSystem) -> None:
    seat, clients = system.seat(), system.people(CALLERS)
    with lock_row(system, seat), monitor_lock_waits(system) as lock_waits:
        answers = run_concurrently([partial(client.reserve, seat) for client in clients])
    assert outcomes(answers) == {"409 SEAT_UNAVAILABLE": CALLERS}
    assert lock_waits.max_waiting == 0, lock_waits.queries
    assert system.seat_status(seat) == "AVAILABLE"
    assert clients[0].reserve(seat).status == 200
