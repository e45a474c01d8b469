"""Races during a purchase.

A race is written at an edge: `meanwhile={edge: action}` runs the action of another process just before that call.

    the race                                                test
    ConfirmSeat arrives after the refund                    test_confirm_seat_arriving_after_the_refund_is_refused
    the reply of the pivot is lost                          test_lost_reply_of_the_pivot_sells_once_and_charges_once
    logout during a flow                                    test_logout_during_a_pay_…, test_logout_before_a_pay_…
    a scan before the pay has ended                         test_seat_scanned_before_its_pay_has_ended_stays_paid
    a lost reply, and then another user has the seat        test_lost_hold_is_not_restored_by_its_retry
    a repeated deduct after a top-up                        test_repeated_deduct_after_a_top_up_stays_refused
"""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import pytest

from tests.saga.in_process import db_builders
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS, Case

pytestmark = pytest.mark.saga

PIVOT = "inventory ConfirmSeat"


def test_lost_hold_is_not_restored_by_its_retry(engine: Engine) -> None:
    """The hold expires before the retry, and another user takes it over. Its key is void, so the retry is refused."""
    case = engine.prepare(FLOWS["reserve"])
    case.people["second"] = case.system.new_user()

    def take_over() -> None:
        case.system.expire_hold(case.seat)
        case.caller("second").post("/api/reserve", {"seat_id": case.seat}).must(200)

    lost, retry = Fault("inventory ReserveSeat", Kind.LOST), "inventory ReserveSeat#2"
    response = engine.request(FLOWS["reserve"], case, lost, meanwhile={retry: take_over})
    assert (response.status, response.error_code) == (409, "STEP_VOIDED")
    engine.recover()
    assert case.system.seat(case.seat)["held_by_user_id"] == case.people["second"]
    engine.assert_invariants(case)


@pytest.mark.claim("pay/refunds-when-seat-refused")
def test_confirm_seat_arriving_after_the_refund_is_refused(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    response = engine.request(FLOWS["pay"], case, Fault(PIVOT, Kind.LATE_GIVES_UP))
    assert response.status == 500
    assert case.balance("buyer") == 1000, "the refund precedes the late message"
    engine.recover()
    assert case.status() == "HELD"
    engine.assert_invariants(case)


def test_lost_reply_of_the_pivot_sells_once_and_charges_once(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    response = engine.request(FLOWS["pay"], case, Fault(PIVOT, Kind.LOST_GIVES_UP))
    engine.recover()
    assert response.status == 200
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.assert_invariants(case)


def test_crashed_pay_is_refunded_when_another_buyer_has_the_seat(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    case.people["second"] = case.system.new_user()
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    _take_over_seat(case)
    engine.recover()
    assert (case.owner(), case.balance("buyer"), case.balance("second")) == ("second", 1000, 800)
    engine.assert_invariants(case)


def _take_over_seat(case: Case) -> None:
    case.system.expire_hold(case.seat)
    second = case.caller("second")
    order = second.post("/api/reserve", {"seat_id": case.seat}).must(200)["order_id"]
    second.post("/api/pay", {"order_id": order}).must(200)


def test_logout_during_a_pay_lets_it_finish(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    response = engine.request(FLOWS["pay"], case, meanwhile={"user POST /credits/deduct": lambda: _log_out(engine)})
    assert response.status == 200
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.recover()
    engine.assert_invariants(case)


def test_logout_before_a_pay_charges_nothing(engine: Engine) -> None:
    """The user logs out after the reservation, so the old token cannot pay, and the hold expires."""
    case = engine.prepare(FLOWS["reserve"])
    response = engine.request(FLOWS["reserve"], case, meanwhile={"journal end": lambda: _log_out(engine)})
    refused = case.caller("buyer", engine.faulty_app).post("/api/pay", {"order_id": response.data["order_id"]})
    assert (refused.status, refused.error_code) == (401, "UNAUTHORIZED")
    case.system.expire_hold(case.seat)
    case.system.sweep()
    assert (case.status(), case.balance("buyer")) == ("AVAILABLE", 1000)
    engine.recover()
    engine.assert_invariants(case)


def _log_out(engine: Engine) -> None:
    engine.plan.is_logged_out = True


def test_seat_scanned_before_its_pay_has_ended_stays_paid(engine: Engine) -> None:
    """The process dies after the pivot. The seat is SOLD although the saga has not ended, so one scan succeeds."""
    case = engine.prepare(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_AFTER))
    case.people["staff"] = case.system.new_user("0.00", role="staff")
    case.issue_qr("buyer")
    assert case.run("verify").must(200)["result"] == "SUCCESS"
    engine.recover()
    assert (case.status(), case.balance("buyer")) == ("CHECKED_IN", 800)
    engine.assert_invariants(case)


def test_repeated_deduct_after_a_top_up_stays_refused(engine: Engine) -> None:
    """A refusal is stored under its idempotency key. Only the next attempt has another key."""
    case = engine.prepare(FLOWS["pay"])
    users, poor = engine.healthy.participants.users, case.system.new_user("10.00")
    key = f"pay:{uuid4()}:1:deduct_credits"
    with pytest.raises(Exception, match="INSUFFICIENT_CREDITS"):
        users.deduct(key, str(poor), Decimal(200))
    db_builders.add_credits(case.system, poor, Decimal(490))
    with pytest.raises(Exception, match="INSUFFICIENT_CREDITS"):
        users.deduct(key, str(poor), Decimal(200))
    assert users.deduct(key.replace(":1:", ":2:"), str(poor), Decimal(200))["credit_balance"] == 300


def test_stranger_gets_no_response_of_another_users_pay(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    case.people["stranger"] = case.system.new_user()
    order = {"order_id": case.ids["order_id"]}
    before = case.caller("stranger").post("/api/pay", order)
    case.run("pay").must(200)
    after = case.caller("stranger").post("/api/pay", order)
    assert [(a.status, a.error_code) for a in (before, after)] == [(403, "FORBIDDEN")] * 2
    engine.assert_invariants(case)


def test_crashed_refund_keeps_a_sale_with_an_open_transfer(engine: Engine) -> None:
    """The process died before the first read. The adopter must not cancel a sale that has an open transfer."""
    case = engine.prepare(FLOWS["confirm"])
    assert engine.act(FLOWS["refund"], case, Fault("journal begin", Kind.DIES_AFTER)) is None
    engine.recover()
    assert case.status() == "SOLD"
    case.run("confirm").must(200)  # the transfer continues
    engine.assert_invariants(case)
