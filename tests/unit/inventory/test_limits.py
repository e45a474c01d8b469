"""The limits of one user: live holds and tickets per event, and the wait after a hold that lapsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import pytest

from services.chassis.db import Transaction
from services.inventory.store import holds
from services.inventory.store.holds import DEFAULT_LIMITS
from tests.support.databases import LOCK_SECONDS, Databases
from tests.support.query_plans import explain_during_sale
from tests.support.service_settings import new_id, new_key
from tests.support.waiting import wait_until
from tests.unit.inventory.inventory_service import (
    HASH,
    InventoryService,
    expect_refusal,
    run_concurrently,
)

pytestmark = pytest.mark.unit

HOLDS, TICKETS, WAIT = DEFAULT_LIMITS.max_holds, DEFAULT_LIMITS.max_tickets, DEFAULT_LIMITS.wait_seconds


@pytest.fixture
def event() -> str:
    return new_id()


def hold_seats(inventory: InventoryService, user_id: str, event: str, number: int) -> list[tuple[str, str]]:
    """Hold new seats. Returns each seat with its hold."""
    held = [(inventory.new_seat(event), new_id()) for _ in range(number)]
    for seat_id, hold_id in held:
        inventory.reserve(seat_id, user_id, hold_id)
    return held


def buy_seats(inventory: InventoryService, user_id: str, event: str, number: int) -> list[tuple[str, str]]:
    """Sell new seats to the user. Returns each seat with its order."""
    bought: list[tuple[str, str]] = []
    for _ in range(number):
        bought += hold_seats(inventory, user_id, event, 1)
        inventory.confirm(*bought[-1], user_id)
    return bought


def set_limits(inventory: InventoryService, event: str, holds: int, tickets: int) -> None:
    insert = "INSERT INTO event_limits VALUES (%(event)s, %(holds)s, %(tickets)s)"
    with inventory.db.transaction() as tx:
        tx.run(insert, event=event, holds=holds, tickets=tickets)


# ── live holds


def test_holds_of_one_user_and_event_are_limited(inventory: InventoryService, event: str) -> None:
    user_id, seat_id = new_id(), inventory.new_seat(event)
    hold_seats(inventory, user_id, event, HOLDS)
    with expect_refusal("HOLD_LIMIT_REACHED"):
        inventory.reserve(seat_id, user_id)
    assert inventory.seat(seat_id).status == "AVAILABLE"
    inventory.reserve(seat_id)
    hold_seats(inventory, user_id, new_id(), 1)


def test_only_live_holds_of_a_user_count(inventory: InventoryService, event: str) -> None:
    user_id = new_id()
    released, lapsed, sold, *_ = hold_seats(inventory, user_id, event, HOLDS)
    inventory.release(*released)
    inventory.expire(lapsed[0])
    inventory.confirm(*sold, user_id)
    hold_seats(inventory, user_id, event, 2)
    with expect_refusal("TICKET_LIMIT_REACHED"):
        hold_seats(inventory, user_id, event, 2)


def test_user_at_the_limit_replaces_their_failed_hold(inventory: InventoryService, event: str) -> None:
    user_id = new_id()
    seat_id, failed = hold_seats(inventory, user_id, event, HOLDS)[0]
    assert inventory.reserve(seat_id, user_id, replaces=failed).hold_id != failed


def test_parallel_reserves_of_one_user_stay_in_the_limit(inventory: InventoryService, event: str) -> None:
    user_id = new_id()
    answers = run_concurrently([partial(inventory.reserve, inventory.new_seat(event), user_id) for _ in range(30)])
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert set(refused) == {"HOLD_LIMIT_REACHED"}
    assert len(answers) - len(refused) == HOLDS


HOLD = """UPDATE seats SET status = 'HELD', held_by_user_id = %(user_id)s, hold_id = gen_random_uuid(),
    held_until = app_now() + interval '5 minutes' WHERE seat_id = %(seat_id)s"""


@contextmanager
def lock_user(inventory: InventoryService, user_id: str) -> Iterator[Transaction]:
    """Hold the lock of a user, as a reserve does until it commits."""
    with inventory.db.transaction() as tx:
        tx.one("SELECT pg_advisory_xact_lock(hashtextextended(%(user_id)s, 0))", user_id=user_id)
        yield tx


def test_reserves_of_one_user_wait_for_each_other(inventory: InventoryService, event: str) -> None:
    """The second reserve counts what the first one committed while the second waited."""
    user_id = new_id()
    (last, hold_id), *_ = hold_seats(inventory, user_id, event, HOLDS)
    inventory.release(last, hold_id)
    with ThreadPoolExecutor(1) as pool:
        with lock_user(inventory, user_id) as tx:
            tx.run(HOLD, seat_id=last, user_id=user_id)
            refused = pool.submit(inventory.reserve, inventory.new_seat(event), user_id)
            wait_until(lambda: inventory.count_waiting() == 1, LOCK_SECONDS - 1)
        with expect_refusal("HOLD_LIMIT_REACHED"):
            refused.result()


def test_two_users_do_not_wait_for_each_other(inventory: InventoryService, event: str) -> None:
    with lock_user(inventory, new_id()):
        inventory.reserve(inventory.new_seat(event))


# ── tickets


def test_holds_and_tickets_of_one_user_are_limited(inventory: InventoryService, event: str) -> None:
    user_id = new_id()
    buy_seats(inventory, user_id, event, TICKETS - 1)
    hold_seats(inventory, user_id, event, 1)
    with expect_refusal("TICKET_LIMIT_REACHED"):
        hold_seats(inventory, user_id, event, 1)


def test_hold_whose_sale_may_not_be_visible_still_counts(inventory: InventoryService, event: str) -> None:
    """A payment at the end of its hold may commit after the next reserve has counted."""
    user_id = new_id()
    buy_seats(inventory, user_id, event, TICKETS - 1)
    ((seat_id, _),) = hold_seats(inventory, user_id, event, 1)
    inventory.expire(seat_id)
    with expect_refusal("TICKET_LIMIT_REACHED"):
        hold_seats(inventory, user_id, event, 1)


def test_buyer_of_a_transfer_has_the_same_limit(inventory: InventoryService, event: str) -> None:
    buyer, seller = new_id(), new_id()
    buy_seats(inventory, buyer, event, TICKETS - 1)
    hold_seats(inventory, buyer, event, 1)
    ((seat_id, order_id),) = buy_seats(inventory, seller, event, 1)
    with expect_refusal("TICKET_LIMIT_REACHED"):
        inventory.update_owner(seat_id, order_id, seller, buyer)
    assert inventory.seat(seat_id).owner_user_id == seller


def test_ticket_returns_to_a_seller_at_the_limit(inventory: InventoryService, event: str) -> None:
    buyer, seller = new_id(), new_id()
    ((seat_id, order_id),) = buy_seats(inventory, seller, event, 1)
    inventory.update_owner(seat_id, order_id, seller, buyer)
    buy_seats(inventory, seller, event, TICKETS)
    sale = {"seat_id": seat_id, "order_id": order_id, "expected_owner_id": buyer}
    change = {"new_owner_id": seller, "qr_code_hash": HASH, "is_return": True}
    inventory.call("UpdateOwner", key=new_key(), **sale, **change)
    assert inventory.seat(seat_id).owner_user_id == seller


# ── the event's own limits


def test_event_can_have_its_own_limits(inventory: InventoryService, event: str) -> None:
    user_id = new_id()
    set_limits(inventory, event, holds=1, tickets=2)
    buy_seats(inventory, user_id, event, 1)
    hold_seats(inventory, user_id, event, 1)
    with expect_refusal("TICKET_LIMIT_REACHED"):
        hold_seats(inventory, user_id, event, 1)
    other = new_id()
    hold_seats(inventory, other, event, 1)
    with expect_refusal("HOLD_LIMIT_REACHED"):
        hold_seats(inventory, other, event, 1)


def test_event_can_have_no_limits(inventory: InventoryService, event: str) -> None:
    set_limits(inventory, event, holds=0, tickets=0)
    assert len(hold_seats(inventory, new_id(), event, TICKETS + 1)) == TICKETS + 1


# ── the wait after a lapse


def end_by_message(inventory: InventoryService, seat_id: str, hold_id: str) -> None:
    assert holds.release_expired(inventory.db, UUID(seat_id), UUID(hold_id), new_id()).outcome == "RELEASED"


def end_by_sweep(inventory: InventoryService, seat_id: str, _hold_id: str) -> None:
    assert seat_id in [str(swept["seat_id"]) for swept in holds.sweep(inventory.db, 1000, grace_seconds=0)]


def end_by_take_over(inventory: InventoryService, seat_id: str, _hold_id: str) -> None:
    assert inventory.release(seat_id, inventory.reserve(seat_id).hold_id)


def leave(_inventory: InventoryService, _seat_id: str, _hold_id: str) -> None:
    """Leave the expired hold on the seat."""


@pytest.mark.parametrize("end", [end_by_message, end_by_sweep, end_by_take_over, leave])
def test_user_waits_after_their_hold_has_lapsed(
    inventory: InventoryService, end: Callable[[InventoryService, str, str], None]
) -> None:
    seat_id, hold_id, user_id = inventory.held_seat()
    inventory.expire(seat_id)
    end(inventory, seat_id, hold_id)
    with expect_refusal("HOLD_TOO_SOON") as refused:
        inventory.reserve(seat_id, user_id)
    assert 0 < refused.value.details["retry_after_seconds"] <= WAIT
    with inventory.clock_at(WAIT):
        assert inventory.reserve(seat_id, user_id)


def test_others_do_not_wait_for_a_lapsed_hold(inventory: InventoryService) -> None:
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    end_by_message(inventory, seat_id, hold_id)
    assert inventory.reserve(seat_id)


def test_hold_that_was_released_has_no_wait(inventory: InventoryService) -> None:
    seat_id, hold_id, user_id = inventory.held_seat()
    inventory.release(seat_id, hold_id)
    assert inventory.reserve(seat_id, user_id)


def test_count_reads_only_the_seats_of_the_user(databases: Databases) -> None:
    quiet = """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
        SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000007', 'R', n, 'CAT1'
        FROM generate_series(1, 5000) AS n"""
    held = """UPDATE seats SET status = 'HELD', hold_id = gen_random_uuid(), held_by_user_id = gen_random_uuid(),
        held_until = app_now() WHERE seat_id IN (SELECT seat_id FROM seats LIMIT 500)"""
    of_user = "event_id = '00000000-0000-0000-0000-000000000007' AND held_until > app_now()"
    with explain_during_sale(databases, "inventory", "seats", quiet, held) as explain:
        sql = f"SELECT count(*) FROM seats WHERE held_by_user_id = %(user_id)s AND {of_user}"
        assert "idx_seats_holder" in explain(sql, user_id=UUID(int=1))
