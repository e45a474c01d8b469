"""Disputes: only the latest transfer of a confirmed order, and never while an onward transfer is verified."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest

from services.chassis.db import Transaction
from services.order import disputes
from tests.support.concurrency import run_concurrently
from tests.support.service_settings import new_id, new_key
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit


class Seat:
    """A sold seat, and the ids that its transfers have."""

    def __init__(self, service: OrderService) -> None:
        self.seat_id = new_id()
        self.order_id = service.add_confirmed(seat_id=self.seat_id)
        self.ids = {"seat_id": self.seat_id, "order_id": self.order_id}


@pytest.fixture
def seat(service: OrderService) -> Seat:
    return Seat(service)


@pytest.mark.claim("dispute/freezes-credits")
def test_a_completed_transfer_is_disputed_once(service: OrderService, seat: Seat) -> None:
    transfer_id, key = service.add_completed(**seat.ids), new_key("dispute")
    replies = [service.dispute(transfer_id, key, "phishing") for _ in range(2)]
    assert [(reply.data["status"], reply.data["dispute_count"]) for reply in replies] == [("DISPUTED", 1)] * 2
    assert service.transfer(transfer_id)["dispute_reason"] == "phishing"
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_one_of_four_concurrent_disputes_succeeds(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    with ThreadPoolExecutor(4) as pool:
        with service.keep_locked("transfer", transfer_id, waiters=4):  # each has read COMPLETED
            calls = [pool.submit(service.dispute, transfer_id) for _ in range(4)]
        assert sorted(dispute.result().status for dispute in calls) == [200, 409, 409, 409]
    assert service.transfer(transfer_id)["dispute_count"] == 1


@pytest.mark.parametrize("stage", ["initiated", "awaiting", "verified"])
def test_only_a_completed_transfer_can_be_disputed(service: OrderService, seat: Seat, stage: str) -> None:
    assert service.dispute(getattr(service, f"add_{stage}")(**seat.ids)).code == "TRANSFER_INVALID_STATE"
    assert service.dispute(new_id()).code == "TRANSFER_NOT_FOUND"


def test_transfer_of_a_refunded_order_cannot_be_disputed(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    service.refund(seat.order_id)
    service.add_confirmed(seat_id=seat.seat_id)  # sold again, as another order
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_dispute_waits_for_a_concurrent_refund(service: OrderService, impatient: OrderService, seat: Seat) -> None:
    transfer_id, key = service.add_completed(**seat.ids), new_key("dispute")
    with service.db.transaction() as tx:
        tx.run("UPDATE orders SET status = 'REFUNDED' WHERE order_id = %(id)s", id=UUID(seat.order_id))
        assert impatient.dispute(transfer_id, key).status == 503
    assert service.dispute(transfer_id, key).code == "TRANSFER_INVALID_STATE"


def test_only_the_latest_transfer_of_an_order_can_be_disputed(service: OrderService, seat: Seat) -> None:
    first, second = service.add_completed(**seat.ids), service.add_completed(**seat.ids)
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"
    assert service.dispute(second).status == 200
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"


def test_dispute_sees_a_concurrent_onward_completion(
    service: OrderService, seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, onward = service.add_completed(**seat.ids), service.add_verified(**seat.ids)
    fail_onward = disputes._fail_onward_transfers

    def complete_first(tx: Transaction, seat_id: UUID) -> None:
        assert service.change_transfer(onward, status="COMPLETED").status == 200
        fail_onward(tx, seat_id)

    monkeypatch.setattr(disputes, "_fail_onward_transfers", complete_first)
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(first)["status"] == "COMPLETED"


def test_reversal_makes_the_previous_transfer_the_latest(service: OrderService, seat: Seat) -> None:
    first, second = service.add_completed(**seat.ids), service.add_completed(**seat.ids)
    service.dispute(second)
    assert service.change_transfer(second, status="REVERSED").data["status"] == "REVERSED"
    assert service.dispute(first).status == 200


@pytest.mark.parametrize("stage", ["initiated", "awaiting", "half_verified"])
def test_dispute_fails_an_open_onward_transfer(service: OrderService, seat: Seat, stage: str) -> None:
    transfer_id = service.add_completed(**seat.ids)
    onward = getattr(service, f"add_{stage}")(**seat.ids)
    assert service.dispute(transfer_id).status == 200
    assert service.transfer(onward)["status"] == "FAILED"


def test_verified_onward_transfer_blocks_the_dispute(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    onward = service.add_verified(**seat.ids)
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(onward)["status"] == "PENDING_OTP"
    assert service.transfer(transfer_id)["status"] == "COMPLETED"


def test_dispute_fails_a_concurrent_onward_transfer(service: OrderService) -> None:
    for _ in range(8):
        seat = Seat(service)
        transfer_id = service.add_completed(**seat.ids)
        calls = [partial(service.dispute, transfer_id)] + [partial(service.initiate, **seat.ids)] * 3
        disputed, *initiated = run_concurrently(calls)
        assert disputed.status == 200
        for reply in initiated:
            if reply.status == 201:
                assert service.transfer(reply.data["transfer_id"])["status"] == "FAILED"


def test_concurrent_dispute_and_second_code_never_both_succeed(service: OrderService) -> None:
    for _ in range(10):
        seat = Seat(service)
        transfer_id, key = service.add_completed(**seat.ids), new_key("take")
        path = f"transfers/{service.add_half_verified(**seat.ids)}"
        service.take(path, key, party="BUYER")
        verified, disputed = run_concurrently(
            [
                partial(service.end, path, key, "approved", party="BUYER"),
                partial(service.dispute, transfer_id),
            ]
        )
        assert (verified.status, disputed.status) in [(200, 409), (409, 200)]


def test_dispute_stores_the_frozen_amount(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    service.dispute(transfer_id)
    frozen = service.change_transfer(transfer_id, credits_frozen=70.25, freeze_key="dispute:1:freeze")
    assert b'"credits_frozen":70.25' in frozen.raw
    assert service.transfer(transfer_id)["freeze_key"] == "dispute:1:freeze"
    assert service.change_transfer(transfer_id, credits_frozen=0).status == 200
    assert service.change_transfer(transfer_id, credits_frozen=1000).code == "TRANSFER_INVALID_STATE"
    assert service.change_transfer(service.add_completed(), credits_frozen=1).code == "TRANSFER_INVALID_STATE"


def test_dismissed_dispute_completes_the_transfer_for_good(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    completed_at = service.transfer(transfer_id)["completed_at"]
    service.dispute(transfer_id)
    dismissed = service.change_transfer(transfer_id, status="COMPLETED", expected="DISPUTED").data
    assert (dismissed["status"], dismissed["completed_at"]) == ("COMPLETED", completed_at)
    assert service.dispute(transfer_id).code == "DISPUTE_CLOSED"
    assert service.transfer(transfer_id)["status"] == "COMPLETED"


def test_closed_dispute_is_named_before_a_dispute_of_a_later_transfer(service: OrderService, seat: Seat) -> None:
    first = service.add_completed(**seat.ids)
    service.dispute(first)
    service.change_transfer(first, status="COMPLETED", expected="DISPUTED")
    service.dispute(service.add_completed(**seat.ids))
    assert service.dispute(first).code == "DISPUTE_CLOSED"


def test_transfer_of_a_used_ticket_cannot_be_disputed(service: OrderService, seat: Seat) -> None:
    transfer_id, key = service.add_completed(**seat.ids), new_key("dispute")
    assert service.dispute(transfer_id, is_ticket_used=True).code == "DISPUTE_CLOSED"
    disputed = service.dispute(transfer_id, key)
    assert service.dispute(transfer_id, key, is_ticket_used=True).data == disputed.data, "a retry gets its first answer"


@pytest.mark.parametrize(("days", "status"), [(29, 200), (30, 409)])
def test_transfer_can_be_disputed_until_its_last_day(service: OrderService, seat: Seat, days: int, status: int) -> None:
    transfer_id = service.add_completed(**seat.ids)
    age = "UPDATE transfers SET completed_at = app_now() - make_interval(days => %(days)s) WHERE transfer_id = %(id)s"
    with service.db.transaction() as tx:
        tx.run(age, days=days, id=UUID(transfer_id))
    disputed = service.dispute(transfer_id)
    assert (disputed.status, disputed.code) == (status, None if status == 200 else "DISPUTE_CLOSED")


def test_transfer_confirm_does_not_dismiss_a_dispute(service: OrderService, seat: Seat) -> None:
    transfer_id = service.add_completed(**seat.ids)
    service.dispute(transfer_id)
    late = service.change_transfer(transfer_id, status="COMPLETED", expected="PENDING_OTP")
    assert late.code == "TRANSFER_INVALID_STATE"


def test_one_of_concurrent_reverse_and_dismiss_succeeds(service: OrderService) -> None:
    for _ in range(5):
        transfer_id = service.add_completed(**Seat(service).ids)
        service.dispute(transfer_id)
        replies = run_concurrently(
            [
                partial(service.change_transfer, transfer_id, status="REVERSED"),
                partial(service.change_transfer, transfer_id, status="COMPLETED", expected="DISPUTED"),
            ]
        )
        assert sorted(reply.status for reply in replies) == [200, 409]


@pytest.mark.parametrize("stage", ["initiated", "verified", "completed"])
def test_only_a_disputed_transfer_can_be_reversed(service: OrderService, stage: str) -> None:
    assert (
        service.change_transfer(getattr(service, f"add_{stage}")(), status="REVERSED").code == "TRANSFER_INVALID_STATE"
    )


@pytest.mark.claim("schema/transfers.dispute_reason")
@pytest.mark.parametrize("reason", ["", "x" * 1001, "a\0b"])
def test_invalid_reason_is_refused(service: OrderService, seat: Seat, reason: str) -> None:
    assert service.dispute(service.add_completed(**seat.ids), reason=reason).code == "VALIDATION_ERROR"
