"""Disputes: only of the sale that stands and its latest transfer, and never beside a swap under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest

from services.chassis.db import Transaction
from services.chassis.settings import DatabaseSettings
from services.order import disputes
from tests.support.concurrency import run_concurrently
from tests.unit.order.order_service import OrderService, a_key, an_id

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


class Seat:
    """A seat that has been sold, and the ids that its transfers carry."""

    def __init__(self, service: OrderService) -> None:
        self.seat_id = an_id()
        self.order_id = service.confirmed(seat_id=self.seat_id)
        self.ids = {"seat_id": self.seat_id, "order_id": self.order_id}


@pytest.fixture
def seat(service: OrderService) -> Seat:
    return Seat(service)


@pytest.mark.claim("dispute/freezes-credits")
def test_a_completed_transfer_is_disputed_once(service: OrderService, seat: Seat) -> None:
    transfer_id, key = service.completed(**seat.ids), a_key("dispute")
    replies = [service.dispute(transfer_id, key, "phishing") for _ in range(2)]
    assert [(reply.data["status"], reply.data["dispute_count"]) for reply in replies] == [("DISPUTED", 1)] * 2
    assert service.transfer(transfer_id)["dispute_reason"] == "phishing"
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_of_four_disputes_at_once_one_opens_it(database_for: Callable[[str], DatabaseSettings]) -> None:
    service = OrderService(database_for("order"), lock_timeout_ms=4000)
    transfer_id = service.completed(**Seat(service).ids)
    with ThreadPoolExecutor(4) as pool:
        with service.held_back("transfer", transfer_id, waiters=4):  # all have seen it COMPLETED
            asked = [pool.submit(service.dispute, transfer_id) for _ in range(4)]
        assert sorted(dispute.result().status for dispute in asked) == [200, 409, 409, 409]
    assert service.transfer(transfer_id)["dispute_count"] == 1
    service.db.close()


@pytest.mark.parametrize("stage", ["initiated", "awaiting", "verified"])
def test_only_a_completed_transfer_can_be_disputed(service: OrderService, seat: Seat, stage: str) -> None:
    assert service.dispute(getattr(service, stage)(**seat.ids)).code == "TRANSFER_INVALID_STATE"
    assert service.dispute(an_id()).code == "TRANSFER_NOT_FOUND"


def test_a_sale_that_was_refunded_cannot_be_disputed(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    service.refund(seat.order_id)
    service.confirmed(seat_id=seat.seat_id)  # sold again: that sale is another
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_a_refund_that_is_being_written_is_waited_for(service: OrderService, seat: Seat) -> None:
    transfer_id, key = service.completed(**seat.ids), a_key("dispute")
    with service.db.transaction() as tx:
        tx.run("UPDATE orders SET status = 'REFUNDED' WHERE order_id = %(id)s", id=UUID(seat.order_id))
        assert service.dispute(transfer_id, key).status == 503
    assert service.dispute(transfer_id, key).code == "TRANSFER_INVALID_STATE"


def test_only_the_latest_transfer_of_a_sale_can_be_disputed(service: OrderService, seat: Seat) -> None:
    first, second = service.completed(**seat.ids), service.completed(**seat.ids)
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"
    assert service.dispute(second).status == 200
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"


def test_an_onward_transfer_that_completes_behind_the_disputes_back_is_seen(
    service: OrderService, seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, onward = service.completed(**seat.ids), service.verified(**seat.ids)
    clear_way = disputes._clear_way

    def completed_meanwhile(tx: Transaction, seat_id: UUID) -> None:
        assert service.change_transfer(onward, status="COMPLETED").status == 200
        clear_way(tx, seat_id)

    monkeypatch.setattr(disputes, "_clear_way", completed_meanwhile)
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(first)["status"] == "COMPLETED"


def test_after_a_reversal_the_transfer_before_is_the_latest(service: OrderService, seat: Seat) -> None:
    first, second = service.completed(**seat.ids), service.completed(**seat.ids)
    service.dispute(second)
    assert service.change_transfer(second, status="REVERSED").data["status"] == "REVERSED"
    assert service.dispute(first).status == 200


@pytest.mark.parametrize("stage", ["initiated", "awaiting"])
def test_a_pending_onward_transfer_fails_with_the_dispute(service: OrderService, seat: Seat, stage: str) -> None:
    transfer_id = service.completed(**seat.ids)
    onward = getattr(service, stage)(**seat.ids)
    assert service.dispute(transfer_id).status == 200
    assert service.transfer(onward)["status"] == "FAILED"


def test_an_onward_transfer_with_one_code_fails_with_the_dispute(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    onward = service.awaiting(**seat.ids)
    service.try_code(f"transfers/{onward}", "approved", party="SELLER")
    assert service.dispute(transfer_id).status == 200
    assert service.transfer(onward)["status"] == "FAILED"


def test_an_onward_swap_under_way_refuses_the_dispute(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    onward = service.verified(**seat.ids)
    assert service.dispute(transfer_id).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(onward)["status"] == "PENDING_OTP"
    assert service.transfer(transfer_id)["status"] == "COMPLETED"


def test_an_onward_transfer_initiated_behind_the_disputes_back_is_found(service: OrderService) -> None:
    for _ in range(8):
        seat = Seat(service)
        transfer_id = service.completed(**seat.ids)
        calls = [partial(service.dispute, transfer_id)] + [partial(service.initiate, **seat.ids)] * 3
        disputed, *initiated = run_concurrently(calls)
        assert disputed.status == 200
        for reply in initiated:
            if reply.status == 201:
                assert service.transfer(reply.data["transfer_id"])["status"] == "FAILED"


def test_dispute_and_the_onward_transfers_second_code_never_both_succeed(service: OrderService) -> None:
    for _ in range(10):
        seat = Seat(service)
        transfer_id, onward, key = service.completed(**seat.ids), service.awaiting(**seat.ids), a_key("take")
        of = f"transfers/{onward}"
        service.try_code(of, "approved", party="SELLER")
        service.take(of, key, party="BUYER")
        verified, disputed = run_concurrently(
            [
                partial(service.end, of, key, "approved", party="BUYER"),
                partial(service.dispute, transfer_id),
            ]
        )
        assert (verified.status, disputed.status) in [(200, 409), (409, 200)]


def test_a_dispute_remembers_what_it_froze(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    service.dispute(transfer_id)
    frozen = service.change_transfer(transfer_id, credits_frozen=70.25, freeze_key="dispute:1:freeze")
    assert b'"credits_frozen":70.25' in frozen.raw
    assert service.transfer(transfer_id)["freeze_key"] == "dispute:1:freeze"
    assert service.change_transfer(transfer_id, credits_frozen=0).status == 200
    assert service.change_transfer(transfer_id, credits_frozen=1000).code == "TRANSFER_INVALID_STATE"
    assert service.change_transfer(service.completed(), credits_frozen=1).code == "TRANSFER_INVALID_STATE"


def test_a_dismissed_dispute_is_a_completed_transfer_again(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    completed_at = service.transfer(transfer_id)["completed_at"]
    service.dispute(transfer_id)
    dismissed = service.change_transfer(transfer_id, status="COMPLETED", expected="DISPUTED").data
    assert (dismissed["status"], dismissed["completed_at"]) == ("COMPLETED", completed_at)
    again = service.dispute(transfer_id).data
    assert (again["dispute_count"], again["credits_frozen"], again["freeze_key"]) == (2, 0, None)


def test_the_end_of_a_swap_does_not_dismiss_a_dispute(service: OrderService, seat: Seat) -> None:
    transfer_id = service.completed(**seat.ids)
    service.dispute(transfer_id)
    late = service.change_transfer(transfer_id, status="COMPLETED", expected="PENDING_OTP")
    assert late.code == "TRANSFER_INVALID_STATE"


def test_of_reverse_and_dismiss_at_once_one_decides(service: OrderService) -> None:
    for _ in range(5):
        transfer_id = service.completed(**Seat(service).ids)
        service.dispute(transfer_id)
        replies = run_concurrently(
            [
                partial(service.change_transfer, transfer_id, status="REVERSED"),
                partial(service.change_transfer, transfer_id, status="COMPLETED", expected="DISPUTED"),
            ]
        )
        assert sorted(reply.status for reply in replies) == [200, 409]


@pytest.mark.parametrize("stage", ["initiated", "verified", "completed"])
def test_only_a_dispute_can_be_reversed(service: OrderService, stage: str) -> None:
    assert service.change_transfer(getattr(service, stage)(), status="REVERSED").code == "TRANSFER_INVALID_STATE"


@pytest.mark.claim("schema/transfers.dispute_reason")
@pytest.mark.parametrize("reason", ["", "x" * 1001, "a\0b"])
def test_a_reason_is_text_of_some_length(service: OrderService, seat: Seat, reason: str) -> None:
    assert service.dispute(service.completed(**seat.ids), reason=reason).code == "VALIDATION_ERROR"
