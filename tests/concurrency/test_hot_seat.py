"""One seat, everybody at once; and a seat whose row somebody has locked: the answer comes at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar

import pytest

from harness.bench.locking_strategies import Waiters, percentile
from harness.report.charts import dots
from harness.runtime.ports import HOST
from tests.concurrency.callers import inventory
from tests.concurrency.figures import Figures
from tests.concurrency.patched_service import weakened
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = [pytest.mark.concurrency, pytest.mark.usefixtures("invariants")]

CLIENTS, ALONE = 240, 25
CALLERS = 50
AT_ONCE_SECONDS = 0.9  # below lock_timeout: who waited for the lock cannot have been answered by then
T = TypeVar("T")


def timed(call: Callable[[], T]) -> Callable[[], tuple[T, float]]:
    """The call, with the seconds that it took."""

    def run() -> tuple[T, float]:
        began = time.perf_counter()
        return call(), time.perf_counter() - began

    return run


def seats_db(system: TestSystem) -> Waiters:
    """Who waits for a lock in Inventory's database."""
    return Waiters(system.stack.admin_dsn("seats_db"))


@pytest.mark.claim("protocols/grpc-and-nowait", "lock/loser-is-refused", "reserve/seat-unavailable")
def test_of_240_clients_one_holds_the_seat_and_all_others_are_told_at_once(
    system: TestSystem, figures: Figures
) -> None:
    first, *clients = system.people(CLIENTS + 1)
    alone = [timed(partial(first.reserve, system.seat()))()[1] for _ in range(ALONE)]
    seat = system.seat()
    with seats_db(system) as waiters:
        results = run_concurrently([timed(partial(client.reserve, seat)) for client in clients])
    answers = [answer for answer, _ in results]
    lost = [seconds for answer, seconds in results if answer.status == 409]
    told = {"losers' p50": percentile(lost, 0.5), "losers' p99": percentile(lost, 0.99)}
    told = {name: round(seconds * 1000, 1) for name, seconds in told.items()}
    p50_alone = round(percentile(alone, 0.5) * 1000, 1)
    figures.add("hot seat", clients=CLIENTS, milliseconds=told, alone_p50_ms=p50_alone, looks=waiters.looks)
    figures.picture(
        "hot-seat", dots(f"{CLIENTS} clients, one seat", "ms", {"all at once": told, "alone": {"p50": p50_alone}})
    )
    assert outcomes(answers) == {"200": 1, "409 SEAT_UNAVAILABLE": CLIENTS - 1}
    assert system.seat_status(seat) == "HELD"
    assert waiters.most == 0, waiters.queries


@contextmanager
def locked(system: TestSystem, seat: str) -> Iterator[None]:
    """The seat's row in the hands of a second connection."""
    with closing(system.connect("seats_db")) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat,))
        yield
        connection.rollback()


def assert_told_at_once(system: TestSystem, address: str = "") -> list[float]:
    """While the row is locked every caller of Inventory is refused, fast, and nobody waits for the lock."""
    seat = system.seat()
    with inventory(system.stack, address) as caller:
        assert caller.call("GetSeatOwner", seat_id=seat).status == "AVAILABLE"
        with locked(system, seat), seats_db(system) as waiters:
            answers = run_concurrently([timed(partial(caller.reserve, seat))] * CALLERS)
        assert waiters.most == 0, f"{waiters.most} waited for the row: {waiters.queries}"
        assert Counter(code for code, _ in answers) == {"SEAT_UNAVAILABLE": CALLERS}
        seconds = [taken for _, taken in answers]
        assert max(seconds) < AT_ONCE_SECONDS
        assert caller.reserve(seat) == "OK", "free again, it is for the next one to take"
        _give_back(system, seat)
    return seconds


def _give_back(system: TestSystem, seat: str) -> None:
    with inventory(system.stack) as caller:
        caller.call("ReleaseSeat", seat_id=seat, hold_id=str(system.seat_row(seat)["hold_id"]))


@pytest.mark.claim("protocols/grpc-and-nowait", "lock/reserve-uses-nowait", "lock/loser-is-refused")
def test_a_locked_row_is_answered_at_once_by_inventory(system: TestSystem, figures: Figures) -> None:
    seconds = assert_told_at_once(system)
    figures.add("held lock", callers=CALLERS, p99_ms=round(percentile(seconds, 0.99) * 1000, 1))


@pytest.mark.negative_control
def test_control_without_nowait_callers_wait_in_pg_locks(system: TestSystem) -> None:
    patch = (
        "from services.inventory.store import holds\n"
        "assert ' NOWAIT' in holds._HOLD\n"
        "holds._HOLD = holds._HOLD.replace(' NOWAIT', '')"
    )
    with weakened(system.stack, "inventory-service", patch) as ports:
        with pytest.raises(AssertionError, match="waited for the row"):
            assert_told_at_once(system, f"{HOST}:{ports['GRPC_PORT']}")


@pytest.mark.claim("lock/reserve-uses-nowait", "lock/loser-is-refused", "reserve/seat-unavailable")
def test_a_locked_row_is_a_409_at_the_gateway_while_it_is_locked(system: TestSystem) -> None:
    seat, clients = system.seat(), system.people(CALLERS)
    with locked(system, seat), seats_db(system) as waiters:
        answers = run_concurrently([partial(client.reserve, seat) for client in clients])
    assert outcomes(answers) == {"409 SEAT_UNAVAILABLE": CALLERS}
    assert waiters.most == 0, waiters.queries
    assert system.seat_status(seat) == "AVAILABLE"
    assert clients[0].reserve(seat).status == 200
