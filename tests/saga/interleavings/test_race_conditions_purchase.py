"""The cases that a reviewer asks for by name: what concerns buying.

`test_named_recovery.py` and `test_named_transfers.py` have the others.

A reviewer's words                                      the test
ConfirmSeat arriving after the refund                   test_confirm_seat_arriving_after_the_refund_is_refused
a pay in flight while its expired hold is taken over    test_expired_hold_taken_over_while_its_pay_is_in_flight_…
the same pay twice at once                              test_same_pay_many_times_at_once_charges_once
reply of the pivot lost                                 test_lost_reply_of_the_pivot_sells_once_and_charges_once
logout mid-flow                                         test_logout_during_a_pay_…, test_logout_before_a_pay_…
the seat scanned before its pay is settled              test_seat_scanned_before_its_pay_is_settled_stays_paid_for
a third wrong code arriving after the right one         test_third_wrong_code_arriving_after_the_right_one_…
a duplicate of a refused deduct after a top-up          test_duplicate_of_a_refused_deduct_after_a_top_up_…

What "meanwhile" happens at an edge, happens just before that call leaves: the order of a race is written down.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import pytest

from services.orchestrator.saga.flows import PAY
from tests.saga.in_process import db_builders
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS, Case

pytestmark = pytest.mark.saga

PIVOT = "inventory ConfirmSeat"


@pytest.mark.claim("pay/refunds-when-seat-refused")
def test_confirm_seat_arriving_after_the_refund_is_refused(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.LATE_GIVES_UP))
    assert told is not None
    assert told.status == 500
    assert case.balance("buyer") == 1000, "the charge is back before the late message comes"
    engine.settle()
    assert case.status() == "HELD"
    engine.hold_invariants(case)


def test_lost_reply_of_the_pivot_sells_once_and_charges_once(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.LOST_GIVES_UP))
    engine.settle()
    assert told is not None
    assert told.status == 200
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.hold_invariants(case)


def test_expired_hold_taken_over_while_its_pay_is_in_flight_ends_with_one_seat_and_one_refund(engine: Engine) -> None:
    """The hold expires just before the pivot, and somebody else buys the seat: the pivot finds another's."""
    case = engine.prepared(FLOWS["pay"])
    case.people["second"] = case.system.new_user()
    told = engine.act(FLOWS["pay"], case, meanwhile={PIVOT: lambda: _buy_over(case)})
    engine.settle()
    assert told is not None
    assert told.error_code in ("SEAT_NOT_HELD", "HOLD_EXPIRED")
    assert (case.owner(), case.balance("buyer"), case.balance("second")) == ("second", 1000, 800)
    engine.hold_invariants(case)


def test_pay_that_died_before_its_pivot_is_refunded_when_the_seat_has_gone_to_another(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    case.people["second"] = case.system.new_user()
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    _buy_over(case)
    engine.settle()
    assert (case.owner(), case.balance("buyer"), case.balance("second")) == ("second", 1000, 800)
    engine.hold_invariants(case)


def _buy_over(case: Case) -> None:
    case.system.expire_hold(case.seat)
    second = case.caller("second")
    order = second.post("/api/reserve", {"seat_id": case.seat}).must(200)["order_id"]
    second.post("/api/pay", {"order_id": order}).must(200)


def test_same_pay_many_times_at_once_charges_once(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: case.run("pay"), range(8)))
    assert {answer.status for answer in answers} == {200}
    assert case.balance("buyer") == 800
    engine.hold_invariants(case)


def test_logout_during_a_pay_lets_it_end_and_stops_the_next_request(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(FLOWS["pay"], case, meanwhile={"user POST /credits/deduct": lambda: _log_out(engine)})
    assert told is not None
    assert told.status == 200
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.settle()
    engine.hold_invariants(case)


def test_logout_before_a_pay_moves_nothing_and_the_hold_runs_out(engine: Engine) -> None:
    """Reserved, then logged out: the old token pays for nothing any more."""
    case = engine.prepared(FLOWS["reserve"])
    told = engine.act(FLOWS["reserve"], case, meanwhile={"journal end": lambda: _log_out(engine)})
    assert told is not None
    held = case.caller("buyer", engine.victim_app).post("/api/pay", {"order_id": told.data["order_id"]})
    assert (held.status, held.error_code) == (401, "UNAUTHORIZED")
    case.system.expire_hold(case.seat)
    case.system.sweep()
    assert (case.status(), case.balance("buyer")) == ("AVAILABLE", 1000)
    engine.settle()
    engine.hold_invariants(case)


def _log_out(engine: Engine) -> None:
    engine.script.logged_out = True


def test_seat_scanned_before_its_pay_is_settled_stays_paid_for(engine: Engine) -> None:
    """The pivot is done and the process dies: the seat is SOLD, the saga not ended; the gate may admit, once."""
    case = engine.prepared(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_AFTER))
    case.people["staff"] = case.system.new_user("0.00", role="staff")
    case.take_qr("buyer")
    assert case.run("verify").must(200)["result"] == "SUCCESS"
    engine.settle()
    assert (case.status(), case.balance("buyer")) == ("CHECKED_IN", 800)
    engine.hold_invariants(case)


def test_third_wrong_code_arriving_after_the_right_one_fails_nothing(engine: Engine) -> None:
    """Two wrong codes are on their way to be counted when the right one is; whatever comes then changes nothing."""
    case = engine.prepared(FLOWS["verify-otp"])
    right, wrong = case.ids["code"], "000000" if case.ids["code"] != "000000" else "111111"
    counted = "order PATCH /orders/{id}/otp-attempts"
    case.ids["code"] = wrong
    assert case.run("verify-otp").error_code == "OTP_INVALID"

    def verify() -> None:
        case.ids["code"] = right
        case.run("verify-otp").must(200)

    second = engine.act(FLOWS["verify-otp"], case, meanwhile={counted: verify})
    assert second is not None
    assert second.error_code == "OTP_INVALID"
    case.ids["code"] = wrong
    case.run("verify-otp").must(200)  # verified already: no code is looked at
    order = case.system.order_of(case.seat)
    assert order is not None
    assert (order["status"], order["otp_verified_at"] is not None) == ("PENDING", True)
    case.run("pay").must(200)
    engine.settle()
    engine.hold_invariants(case)


def test_duplicate_of_a_refused_deduct_after_a_top_up_stays_refused(engine: Engine) -> None:
    """The refusal is the key's answer; only the next attempt has a key of its own."""
    case = engine.prepared(FLOWS["pay"])
    users, poor = engine.preparer.participants.users, case.system.new_user("10.00")
    key = f"pay:{uuid4()}:1:deduct_credits"
    with pytest.raises(Exception, match="INSUFFICIENT_CREDITS"):
        users.deduct(key, str(poor), Decimal(200))
    db_builders.give(case.system, poor, Decimal(490))
    with pytest.raises(Exception, match="INSUFFICIENT_CREDITS"):
        users.deduct(key, str(poor), Decimal(200))
    assert users.deduct(key.replace(":1:", ":2:"), str(poor), Decimal(200))["credit_balance"] == 300


def test_stranger_neither_joins_nor_learns_the_answer_of_a_pay(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    case.people["stranger"] = case.system.new_user()
    order = {"order_id": case.ids["order_id"]}
    before = case.caller("stranger").post("/api/pay", order)
    case.run("pay").must(200)
    after = case.caller("stranger").post("/api/pay", order)
    assert [(a.status, a.error_code) for a in (before, after)] == [(403, "FORBIDDEN")] * 2
    assert PAY.flow == "pay"
    engine.hold_invariants(case)


def test_refund_that_died_unread_leaves_a_sale_whose_transfer_is_open(engine: Engine) -> None:
    """It had begun and read nothing: whoever adopts it may not cancel a sale that a transfer is waiting for."""
    case = engine.prepared(FLOWS["confirm"])
    assert engine.act(FLOWS["refund"], case, Fault("journal begin", Kind.DIES_AFTER)) is None
    engine.settle()
    assert case.status() == "SOLD"
    case.run("confirm").must(200)  # the transfer goes on as if nothing had been
    engine.hold_invariants(case)
