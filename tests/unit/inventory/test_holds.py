"""ReserveSeat, ReleaseSeat, ConfirmSeat and Settle over gRPC: locks, fencing token and stored effects."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis.db import DatabaseFault
from services.chassis.errors import Unknown
from services.inventory.store import holds
from services.inventory.sweeper import Sweeper
from tests.support.databases import LOCK_SECONDS
from tests.support.query_plans import explain_during_sale
from tests.support.service_settings import new_id, new_key
from tests.support.waiting import wait_until
from tests.unit.inventory.inventory_service import (
    HASH,
    InventoryService,
    expect_refusal,
    result_or_code,
    run_concurrently,
)

pytestmark = pytest.mark.unit


# ── reserve


@pytest.mark.claim("schema/seats.held_by_user_id", "reserve/locks-and-holds-seat", "lock/winner-sets-hold")
def test_free_seat_is_held_until_its_ttl_ends(inventory):
    seat_id, user_id, hold_id = inventory.new_seat(), new_id(), new_id()
    hold = inventory.reserve(seat_id, user_id, hold_id, ttl=60)
    seat = inventory.seat(seat_id)
    assert (hold.seat_id, hold.hold_id, hold.category, hold.row_number) == (seat_id, hold_id, "CAT1", "T")
    assert (seat.status, seat.held_by_user_id, seat.hold_id) == ("HELD", user_id, hold_id)
    assert seat.held_until == hold.held_until
    left = hold.held_until.ToDatetime(tzinfo=UTC).timestamp() - time.time()
    assert 55 < left <= 60.5


def test_retry_of_a_reserve_gets_its_first_answer(inventory):
    seat_id, user_id, hold_id = inventory.new_seat(), new_id(), new_id()
    first = inventory.reserve(seat_id, user_id, hold_id)
    assert inventory.reserve(seat_id, user_id, hold_id) == first


@pytest.mark.claim("lock/checkout-decides")
def test_refusal_has_the_order_id_only_for_the_holder(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    with expect_refusal("SEAT_UNAVAILABLE") as own:
        inventory.reserve(seat_id, user_id)
    with expect_refusal("SEAT_UNAVAILABLE") as other:
        inventory.reserve(seat_id)
    assert own.value.details == {"held_by": user_id, "order_id": hold_id}
    assert other.value.details == {"held_by": user_id}


def test_user_replaces_their_own_hold(inventory):
    seat_id, old, user_id = inventory.held_seat()
    new = new_id()
    hold = inventory.reserve(seat_id, user_id, new, ttl=60, replaces=old)
    assert (hold.hold_id, inventory.seat(seat_id).hold_id) == (new, new)
    assert inventory.reserve(seat_id, user_id, new, ttl=60) == hold, "a retry without the old hold gets the answer"
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, old, user_id)
    assert not inventory.release(seat_id, old)
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, user_id, old)
    assert inventory.confirm(seat_id, new, user_id).order_id == new


def test_refusal_by_the_own_hold_is_not_stored(inventory):
    """The orchestrator repeats the call under the same hold_id once it has seen that the order has failed."""
    seat_id, old, user_id = inventory.held_seat()
    new = new_id()
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id, user_id, new)
    assert inventory.reserve(seat_id, user_id, new, replaces=old).hold_id == new


def test_hold_of_another_user_is_not_replaced(inventory):
    seat_id, old, user_id = inventory.held_seat()
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id, replaces=old)
    assert (inventory.seat(seat_id).hold_id, inventory.seat(seat_id).held_by_user_id) == (old, user_id)


def test_newer_hold_of_the_same_user_is_not_replaced(inventory):
    seat_id, old, user_id = inventory.held_seat()
    newer = inventory.reserve(seat_id, user_id, replaces=old).hold_id
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id, user_id, replaces=old)
    assert inventory.seat(seat_id).hold_id == newer


def test_hold_that_was_confirmed_is_not_replaced(inventory):
    seat_id, order_id, user_id = inventory.sold_seat()
    with expect_refusal("SEAT_ALREADY_SOLD"):
        inventory.reserve(seat_id, user_id, replaces=order_id)


def test_confirm_and_replacement_at_once_have_one_winner(inventory):
    for _ in range(10):
        seat_id, old, user_id = inventory.held_seat()
        new = new_id()
        calls: list[Callable[[], Any]] = [
            partial(inventory.confirm, seat_id, old, user_id),
            partial(inventory.reserve, seat_id, user_id, new, replaces=old),
        ]
        sale, hold = run_concurrently(calls)
        assert isinstance(sale, str) != isinstance(hold, str)
        assert inventory.seat(seat_id).hold_id == (new if isinstance(sale, str) else old)


def test_sold_seat_is_already_sold(inventory):
    seat_id, _, _ = inventory.sold_seat()
    with expect_refusal("SEAT_ALREADY_SOLD"):
        inventory.reserve(seat_id)


def test_unknown_seat_is_not_found(inventory):
    with expect_refusal("SEAT_NOT_FOUND"):
        inventory.reserve(new_id())


def test_retry_of_a_refused_reserve_is_refused_again(inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    late = new_id()
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id, hold_id=late)
    inventory.release(seat_id, hold_id)
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id, hold_id=late)


def test_one_of_many_concurrent_reserves_wins(inventory):
    seat_id = inventory.new_seat()
    answers = run_concurrently([lambda: inventory.reserve(seat_id)] * 30)
    winners = [answer for answer in answers if not isinstance(answer, str)]
    assert len(winners) == 1
    assert set(map(str, answers)) - {str(winners[0])} == {"SEAT_UNAVAILABLE"}
    assert inventory.seat(seat_id).hold_id == winners[0].hold_id


@pytest.mark.claim(
    "protocols/grpc-and-nowait", "lock/reserve-uses-nowait", "lock/loser-is-refused", "reserve/seat-unavailable"
)
def test_reserve_of_a_locked_row_fails_without_waiting(inventory):
    seat_id = inventory.new_seat()
    seen = _Waiters(inventory)
    with inventory.lock_row(seat_id), seen:
        started = time.monotonic()
        answers = run_concurrently([lambda: result_or_code(lambda: inventory.reserve(seat_id))] * 20)
        took = time.monotonic() - started
    assert set(answers) == {"SEAT_UNAVAILABLE"}
    assert took < LOCK_SECONDS, "none of them has waited for the lock"
    assert seen.looks > 1
    assert seen.most == 0


class _Waiters:
    """Counts the waiting locks in pg_locks during the block, on its own connection."""

    def __init__(self, inventory: InventoryService) -> None:
        self._inventory = inventory
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks = self.most = 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            waiting = self._inventory.row("SELECT count(*) AS number FROM pg_locks WHERE NOT granted")["number"]
            self.looks, self.most = self.looks + 1, max(self.most, waiting)


def test_lost_lock_is_not_stored(inventory):
    seat_id, hold_id = inventory.new_seat(), new_id()
    with inventory.lock_row(seat_id):
        with expect_refusal("SEAT_UNAVAILABLE"):
            inventory.reserve(seat_id, hold_id=hold_id)
    assert inventory.reserve(seat_id, hold_id=hold_id).hold_id == hold_id


@pytest.mark.parametrize("meanwhile", ["held", "released", "sold", "cancelled"])
def test_reserve_checks_the_row_as_it_is_under_the_lock(inventory, monkeypatch, meanwhile):
    """The statement's snapshot is older than its lock. A commit between the two must count."""
    made = {"held": lambda: (inventory.new_seat(), "", ""), "cancelled": inventory.sold_seat}
    seat_id, hold_id, user_id = made.get(meanwhile, inventory.held_seat)()
    before = inventory.seat(seat_id)
    slow = holds._HOLD.replace("WHERE seat_id = %(seat_id)s\n    FOR", _SLOW_LOCK)
    assert slow != holds._HOLD
    change: dict[str, Callable[[], object]] = {
        "held": lambda: holds.reserve(inventory.db, _a_hold(seat_id)),
        "released": lambda: inventory.release(seat_id, hold_id),
        "sold": lambda: inventory.confirm(seat_id, hold_id, user_id),
        "cancelled": lambda: inventory.cancel_sale(seat_id, hold_id, user_id),
    }
    late = new_id()
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        quick = holds._HOLD
        patch.setattr(holds, "_HOLD", slow)
        answer = pool.submit(result_or_code, lambda: inventory.reserve(seat_id, hold_id=late))
        wait_until(lambda: inventory.row("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        patch.setattr(holds, "_HOLD", quick)
        change[meanwhile]()
        assert inventory.seat(seat_id) != before
        assert not answer.done()
    after = inventory.seat(seat_id)
    if meanwhile in ("released", "cancelled"):
        assert (answer.result().hold_id, after.status, after.hold_id) == (late, "HELD", late)
    else:
        assert answer.result() == ("SEAT_ALREADY_SOLD" if meanwhile == "sold" else "SEAT_UNAVAILABLE")
        assert after.hold_id not in ("", late)


_SLOW_LOCK = "WHERE seat_id = %(seat_id)s AND pg_sleep(0.7) IS NOT NULL\n    FOR"


def _a_hold(seat_id: str) -> holds.Hold:
    return holds.Hold(UUID(seat_id), uuid4(), uuid4(), 300)


# ── expiry and take-over


def test_replaced_hold_can_be_neither_confirmed_nor_restored(inventory):
    seat_id, old_hold, old_user = inventory.held_seat()
    inventory.expire(seat_id)
    new_hold = inventory.reserve(seat_id).hold_id
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, old_hold, old_user)
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, old_user, old_hold)
    assert inventory.release(seat_id, old_hold) is False
    assert inventory.seat(seat_id).hold_id == new_hold


def test_hold_replaced_by_its_own_user_cannot_be_confirmed(inventory):
    seat_id, old_hold, user_id = inventory.held_seat()
    new_hold = inventory.reserve(seat_id, user_id, replaces=old_hold).hold_id
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, old_hold, user_id)
    assert inventory.seat(seat_id).hold_id == new_hold


def test_expiry_is_decided_by_app_now(inventory):
    seat_id, hold_id, user_id = inventory.held_seat(ttl=300)
    with inventory.clock_at(301):
        with expect_refusal("HOLD_EXPIRED"):
            inventory.confirm(seat_id, hold_id, user_id)
        assert inventory.reserve(seat_id).hold_id != hold_id


def test_live_hold_is_not_taken_over(inventory):
    seat_id, hold_id, _ = inventory.held_seat(ttl=300)
    with inventory.clock_at(200), expect_refusal("SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id)
    assert inventory.seat(seat_id).hold_id == hold_id


def test_retry_of_an_expired_hold_does_not_extend_it(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    inventory.expire(seat_id)
    until = inventory.seat(seat_id).held_until
    inventory.reserve(seat_id, user_id, hold_id)
    assert inventory.seat(seat_id).held_until == until


def test_one_of_many_concurrent_take_overs_wins(inventory):
    seat_id, _, _ = inventory.held_seat()
    inventory.expire(seat_id)
    answers = run_concurrently([lambda: inventory.reserve(seat_id)] * 20)
    assert sum(not isinstance(answer, str) for answer in answers) == 1


# ── release


@pytest.mark.claim("hold/consumer-releases-seat")
def test_released_seat_is_free_and_its_hold_cannot_return(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    assert inventory.release(seat_id, hold_id) is True
    assert inventory.seat(seat_id).status == "AVAILABLE"
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, user_id, hold_id)
    assert inventory.release(seat_id, hold_id) is False


def test_release_before_its_reserve_prevents_the_hold(inventory):
    seat_id, hold_id = inventory.new_seat(), new_id()
    assert inventory.release(seat_id, hold_id) is False
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, hold_id=hold_id)
    assert inventory.seat(seat_id).status == "AVAILABLE"


def test_release_by_a_replaced_hold_leaves_the_new_hold(inventory):
    seat_id, old_hold, _ = inventory.held_seat()
    inventory.expire(seat_id)
    new_hold = new_id()
    inventory.reserve(seat_id, hold_id=new_hold)
    assert inventory.release(seat_id, old_hold) is False
    assert inventory.seat(seat_id).hold_id == new_hold


@pytest.mark.claim("lock/late-message-does-nothing")
def test_release_after_the_sale_leaves_the_sale(inventory):
    seat_id, hold_id, user_id = inventory.sold_seat()
    assert inventory.release(seat_id, hold_id) is False
    assert inventory.seat(seat_id).owner_user_id == user_id


def test_release_frees_the_seat_of_the_hold_not_the_named_seat(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    inventory.release(inventory.new_seat(), hold_id)
    assert inventory.seat(seat_id).status == "AVAILABLE"
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, hold_id, user_id)


def test_concurrent_release_and_reserve_leave_no_hold(inventory):
    for _ in range(20):
        seat_id, hold_id = inventory.new_seat(), new_id()
        run_concurrently(
            [
                partial(inventory.reserve, seat_id, hold_id=hold_id),
                partial(inventory.release, seat_id, hold_id),
            ]
        )
        assert inventory.seat(seat_id).status == "AVAILABLE"


# ── confirm and settle


@pytest.mark.claim(
    "schema/seats.owner_user_id",
    "schema/seats.qr_code_hash",
    "schema/seats.price_paid",
    "pay/sells-seat",
    "qr/created-at-purchase",
    "lock/paid-seat-is-sold",
    "layers/inventory-over-grpc",
)
def test_confirmed_hold_is_a_sale(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    key = new_key()
    first = inventory.confirm(seat_id, hold_id, user_id, key)
    seat = inventory.seat(seat_id)
    assert (seat.status, seat.owner_user_id, seat.order_id, seat.price_paid) == ("SOLD", user_id, hold_id, "350.00")
    assert (seat.held_by_user_id, seat.hold_id, seat.HasField("held_until")) == ("", hold_id, False)
    assert inventory.confirm(seat_id, hold_id, user_id, key) == first
    stored = inventory.row("SELECT qr_code_hash FROM seats WHERE seat_id = %(seat_id)s", seat_id=seat_id)
    assert stored["qr_code_hash"] == HASH


def test_confirm_by_another_user_is_not_held(inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, hold_id, new_id())


def test_refused_confirm_of_a_free_seat_stays_refused(inventory):
    seat_id, key, hold_id, user_id = inventory.new_seat(), new_key(), new_id(), new_id()
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, hold_id, user_id, key)
    inventory.reserve(seat_id, user_id, hold_id)
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, hold_id, user_id, key)


def test_confirm_after_a_settle_is_refused_and_keeps_the_hold(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    key = new_key()
    assert inventory.settle(key) is False
    with expect_refusal("STEP_VOIDED"):
        inventory.confirm(seat_id, hold_id, user_id, key)
    assert inventory.seat(seat_id).status == "HELD"


def test_settle_after_a_cancelled_sale_is_still_done(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    key = new_key()
    inventory.confirm(seat_id, hold_id, user_id, key)
    inventory.cancel_sale(seat_id, hold_id, user_id)
    assert inventory.settle(key) is True


def test_settle_after_a_refused_confirm_is_not_done(inventory):
    seat_id, key = inventory.new_seat(), new_key()
    with expect_refusal("SEAT_NOT_HELD"):
        inventory.confirm(seat_id, new_id(), new_id(), key)
    assert inventory.settle(key) is False


def test_concurrent_confirm_and_settle_agree(inventory):
    for _ in range(20):
        seat_id, hold_id, user_id = inventory.held_seat()
        key = new_key()
        _, done = run_concurrently(
            [
                partial(inventory.confirm, seat_id, hold_id, user_id, key),
                partial(inventory.settle, key),
            ]
        )
        assert (inventory.seat(seat_id).status == "SOLD") is done


def test_concurrent_payment_and_take_over_have_one_winner(inventory):
    for _ in range(20):
        seat_id, hold_id, user_id = inventory.held_seat()
        inventory.expire(seat_id)
        paid, taken = run_concurrently(
            [
                partial(inventory.confirm, seat_id, hold_id, user_id),
                partial(inventory.reserve, seat_id),
            ]
        )
        assert paid in ("HOLD_EXPIRED", "SEAT_NOT_HELD")
        assert taken == "SEAT_UNAVAILABLE" or inventory.seat(seat_id).hold_id == taken.hold_id


def test_confirm_of_a_locked_row_times_out_as_unknown(inventory, impatient):
    seat_id, hold_id, user_id = inventory.held_seat()
    with inventory.lock_row(seat_id), pytest.raises(Unknown):
        impatient.confirm(seat_id, hold_id, user_id)
    assert inventory.seat(seat_id).status == "HELD"


def test_hold_can_expire_while_its_confirm_waits(inventory):
    seat_id, hold_id, user_id = inventory.held_seat(ttl=1)
    answers: list[object] = []
    with inventory.lock_row(seat_id):
        call = threading.Thread(
            target=lambda: answers.append(result_or_code(lambda: inventory.confirm(seat_id, hold_id, user_id)))
        )
        time_is_up = "SELECT held_until <= app_now() AS over FROM seats WHERE seat_id = %(seat_id)s"
        nearly = "SELECT held_until <= app_now() + interval '300 ms' AS over FROM seats WHERE seat_id = %(seat_id)s"
        wait_until(lambda: inventory.row(nearly, seat_id=seat_id)["over"])
        call.start()
        wait_until(lambda: inventory.row(time_is_up, seat_id=seat_id)["over"])
    call.join()
    assert answers == ["HOLD_EXPIRED"]


@pytest.mark.claim("schema/seats.owner_user_id", "schema/seats.held_by_user_id")
@pytest.mark.parametrize(
    "broken",
    [
        "status = 'AVAILABLE'",  # with the fields of a hold
        "status = 'SOLD'",  # without order, owner and price
        "held_until = NULL",
        "owner_user_id = gen_random_uuid()",
    ],
)
def test_database_refuses_an_inconsistent_seat(inventory, broken):
    seat_id, _, _ = inventory.held_seat()
    with pytest.raises(DatabaseFault, match="seat_state_is_whole"), inventory.db.transaction() as tx:
        tx.run(f"UPDATE seats SET {broken} WHERE seat_id = %(seat_id)s", seat_id=seat_id)


# ── the sweeper


@pytest.mark.claim("queue/releases-despite-crash", "hold/consumer-releases-seat")
def test_sweeper_releases_only_expired_holds_and_voids_keys(inventory):
    expired, old_hold, user_id = inventory.held_seat()
    live, live_hold, _ = inventory.held_seat()
    inventory.expire(expired)
    swept = [str(hold["hold_id"]) for hold in holds.sweep(inventory.db, 1000, grace_seconds=0)]
    assert old_hold in swept
    assert live_hold not in swept
    assert inventory.seat(expired).status == "AVAILABLE"
    assert inventory.seat(live).hold_id == live_hold
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(expired, user_id, old_hold)


def test_sweeper_ticks_release_expired_holds(inventory):
    seat_id, *_ = inventory.held_seat()
    inventory.expire(seat_id)
    sweeper = Sweeper(inventory.db, grace_seconds=0)
    while sweeper.tick():
        pass
    assert inventory.seat(seat_id).status == "AVAILABLE"


def test_sweeper_waits_for_the_grace_period(inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    holds.sweep(inventory.db, 1000, grace_seconds=30)
    assert inventory.seat(seat_id).hold_id == hold_id


def test_sweeper_skips_locked_seats(inventory):
    locked, other = inventory.held_seat()[0], inventory.held_seat()[0]
    inventory.expire(locked)
    inventory.expire(other)
    with inventory.lock_row(locked):
        swept = [str(hold["seat_id"]) for hold in holds.sweep(inventory.db, 1000, grace_seconds=0)]
    assert other in swept
    assert locked not in swept


def test_sweeper_releases_one_batch_per_call(inventory):
    for _ in range(5):
        inventory.expire(inventory.held_seat()[0])
    assert len(holds.sweep(inventory.db, 3, grace_seconds=0)) == 3


def test_only_the_sweeper_uses_its_index(databases):
    """A lookup by key and status must not scan every HELD seat."""
    quiet = """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
        SELECT gen_random_uuid(), gen_random_uuid(), 'R', 1, 'CAT1' FROM generate_series(1, 5000)"""
    held = """UPDATE seats SET status = 'HELD', hold_id = gen_random_uuid(), held_by_user_id = gen_random_uuid(),
        held_until = app_now() WHERE seat_id IN (SELECT seat_id FROM seats LIMIT 500)"""
    one = {"seat_id": UUID(int=1), "hold_id": UUID(int=2), "message_id": "m"}
    with explain_during_sale(databases, "inventory", "seats", quiet, held) as explain:
        by_key = (holds._CLEAR_HOLD, holds._CLEAR_EXPIRED, holds._TIME_LEFT)
        assert [sql for sql in by_key if "seats_pkey" not in explain(sql, **one)] == []
        assert "idx_seats_due" in explain(holds._SWEEP, grace_seconds=1, batch=100)
