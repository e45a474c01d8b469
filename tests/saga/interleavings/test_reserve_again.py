"""A buyer whose order failed reserves the same seat again at once. All other users wait until the hold has expired."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from harness.api_client import ApiResponse
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS, Case

pytestmark = pytest.mark.saga

PIVOT = "inventory ConfirmSeat"


def reserve(case: Case, user: str = "buyer", **headers: str) -> ApiResponse:
    """Reserve the seat of the case."""
    return case.caller(user).post("/api/reserve", {"seat_id": case.seat}, **headers)


def undo_pay(engine: Engine, kind: Kind = Kind.DOWN) -> tuple[Case, ApiResponse]:
    """Prepare a held seat and a pay that was undone."""
    case = engine.prepare(FLOWS["pay"])
    response = engine.request(FLOWS["pay"], case, Fault("user POST /credits/deduct", kind))
    return case, response


def test_buyer_reserves_again_after_an_undone_pay(engine: Engine) -> None:
    case, undone = undo_pay(engine)
    assert (undone.status, undone.error_code) == (500, "INTERNAL_ERROR")
    assert "Reserve the seat again" in undone.envelope["message"]
    assert case.run("pay").error_code == "ORDER_FAILED"
    order_id = reserve(case).must(200)["order_id"]
    assert order_id != case.ids["order_id"]
    case.caller("buyer").post("/api/pay", {"order_id": order_id}).must(200)
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.recover()
    engine.assert_invariants(case)


def test_buyer_reserves_again_after_three_wrong_codes(engine: Engine) -> None:
    case = engine.prepare(FLOWS["verify-otp"])
    case.ids["code"] = "000000" if case.ids["code"] != "000000" else "111111"
    assert [case.run("verify-otp").error_code for _ in range(3)] == ["OTP_INVALID", "OTP_INVALID", "OTP_MAX_RETRIES"]
    again = reserve(case).must(200)
    assert (again["otp_required"], case.status()) == (True, "HELD")
    engine.recover()
    engine.assert_invariants(case)


def test_buyer_reserves_again_as_often_as_an_order_fails(engine: Engine) -> None:
    case, _ = undo_pay(engine)
    for _ in range(3):
        case.ids["order_id"] = reserve(case).must(200)["order_id"]
        engine.act(FLOWS["pay"], case, Fault("user POST /credits/deduct", Kind.DOWN))
    assert (case.status(), case.balance("buyer")) == ("HELD", 1000)
    engine.assert_invariants(case)


def test_other_users_wait_for_the_hold_of_a_failed_order(engine: Engine) -> None:
    case, _ = undo_pay(engine)
    case.people["second"] = case.system.new_user()
    refused = reserve(case, "second")
    assert (refused.error_code, refused.envelope.get("details")) == ("SEAT_UNAVAILABLE", None)
    assert reserve(case).status == 200
    assert reserve(case, "second").error_code == "SEAT_UNAVAILABLE"
    engine.assert_invariants(case)


def test_hold_of_a_payable_order_is_kept(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    refused = reserve(case)
    assert (refused.error_code, refused.envelope["details"]) == ("SEAT_UNAVAILABLE", {"order_id": case.ids["order_id"]})
    assert "Pay" in refused.envelope["message"]
    case.run("pay").must(200)
    engine.assert_invariants(case)


def test_hold_is_kept_while_its_pay_is_undone(engine: Engine) -> None:
    """The order has FAILED, but its credits are not back yet."""
    case = engine.prepare(FLOWS["pay"])
    refusals: list[ApiResponse] = []
    key = {"Idempotency-Key": str(uuid4())}
    meanwhile: dict[str, Any] = {"user POST /credits/refund": lambda: refusals.append(reserve(case, **key))}
    engine.request(FLOWS["pay"], case, Fault(PIVOT, Kind.DOWN), meanwhile=meanwhile)
    assert [(refusal.status, refusal.error_code) for refusal in refusals] == [(409, "REQUEST_IN_PROGRESS")]
    assert case.balance("buyer") == 1000
    assert reserve(case, **key).status == 200, "the same key begins again"
    engine.recover()
    engine.assert_invariants(case)


def test_late_pivot_of_a_replaced_hold_is_refused(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    assert engine.request(FLOWS["pay"], case, Fault(PIVOT, Kind.LATE_GIVES_UP)).status == 500
    order_id = reserve(case).must(200)["order_id"]
    engine.recover()  # delivers the late ConfirmSeat of the failed order
    assert case.status() == "HELD"
    case.caller("buyer").post("/api/pay", {"order_id": order_id}).must(200)
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.assert_invariants(case)
