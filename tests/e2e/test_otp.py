"""Flagged users need a code to pay. Three wrong codes fail the order, and an outage of SMU costs no attempt."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

TEN_MINUTES = 601


def hold_as_flagged(system: TestSystem) -> tuple[Person, str, str]:
    """Reserve a seat as a flagged buyer. Return buyer, seat and order."""
    buyer = system.person("1000.00", flagged=True)
    held = buyer.reserve(system.seat()).must(200)
    assert held["otp_required"] is True
    return buyer, held["seat_id"], held["order_id"]


def change_code(code: str) -> str:
    """Return another code of the same length."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


@pytest.mark.claim(
    "schema/users.is_flagged",
    "otp/checks-buyer-flag",
    "otp/flagged-buyer-gets-code",
    "otp/post-verify-otp",
    "otp/smu-verifies-code",
    "otp/verified-purchase-continues",
    "protocols/user-sends-codes",
    "otp/three-tries-for-purchase",
)
def test_a_flagged_user_pays_only_after_the_code(system: TestSystem) -> None:
    buyer, seat, order_id = hold_as_flagged(system)
    assert outcomes([buyer.pay(order_id)]) == {"428 OTP_REQUIRED": 1}
    code = system.code(buyer)
    refused = buyer.verify_otp(change_code(code), order_id)
    assert outcomes([refused]) == {"401 OTP_INVALID": 1}
    assert refused.envelope["details"]["attempts_left"] == 2
    assert outcomes([buyer.pay(order_id)]) == {"428 OTP_REQUIRED": 1}, "the status `pending` of SMU is not verified"
    assert buyer.verify_otp(code).must(200) == {"verified": True, "order_id": order_id}, "the newest order"
    assert buyer.pay(order_id).must(200)["status"] == "CONFIRMED"
    assert system.seat_status(seat) == "SOLD"


@pytest.mark.claim("otp/checks-buyer-flag")
def test_an_unflagged_user_gets_no_code(system: TestSystem) -> None:
    buyer = system.person()
    assert buyer.reserve(system.seat()).must(200)["otp_required"] is False
    assert system.inbox.messages(buyer.phone) == []


@pytest.mark.claim("otp/three-tries-for-purchase")
def test_twenty_wrong_codes_at_once_make_three_attempts(system: TestSystem) -> None:
    """SMU never gets a fourth guess, and then the right code and the pay are refused."""
    buyer, seat, order_id = hold_as_flagged(system)
    code, before = system.code(buyer), len(system.smu.journal())
    answers = run_concurrently([lambda: buyer.verify_otp(change_code(code), order_id)] * 20)
    seen = outcomes(answers)
    assert seen.keys() == {"401 OTP_INVALID", "429 OTP_MAX_RETRIES"}, seen
    assert seen["401 OTP_INVALID"] == 2
    assert len(system.smu.calls("/VerifyOTP", before)) == 3
    assert system.order_status(order_id) == "FAILED"
    late = buyer.verify_otp(code, order_id)
    assert outcomes([late, buyer.pay(order_id)]) == {"429 OTP_MAX_RETRIES": 1, "409 ORDER_FAILED": 1}
    assert system.seat_status(seat) == "HELD", "the hold ends with its TTL"


def test_the_right_code_is_checked_at_smu_once(system: TestSystem) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    code, before = system.code(buyer), len(system.smu.journal())
    assert outcomes([buyer.verify_otp(code, order_id) for _ in range(3)]) == {"200": 3}
    assert len(system.smu.calls("/VerifyOTP", before)) == 1


def test_a_resent_code_replaces_the_first(system: TestSystem) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    first = system.code(buyer)
    assert buyer.resend(order_id=order_id).must(200) == {"sent": True}
    second = system.code(buyer)
    if first != second:
        assert outcomes([buyer.verify_otp(first, order_id)]) == {"401 OTP_INVALID": 1}
    buyer.verify_otp(second, order_id).must(200)
    assert buyer.pay(order_id).status == 200


@pytest.mark.claim("smu/expired-code")
def test_an_expired_code_costs_no_attempt_and_can_be_resent(system: TestSystem) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    with system.smu.advance_clock(TEN_MINUTES):
        for _ in range(4):
            assert outcomes([buyer.verify_otp(system.code(buyer), order_id)]) == {"410 OTP_EXPIRED": 1}
        buyer.resend(order_id=order_id).must(200)
        buyer.verify_otp(system.code(buyer), order_id).must(200)
    assert buyer.pay(order_id).status == 200


def test_the_sixth_code_in_ten_minutes_is_429_with_retry_after(system: TestSystem) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    answers = [buyer.resend(order_id=order_id) for _ in range(5)]
    assert outcomes(answers) == {"200": 4, "429 RATE_LIMITED": 1}
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 600
    seat = system.seat()
    assert outcomes([buyer.reserve(seat)]) == {"429 RATE_LIMITED": 1}
    assert system.seat_status(seat) == "AVAILABLE", "a reserve that cannot send its code holds nothing"
    with system.clock("users_db", TEN_MINUTES):
        buyer.resend(order_id=order_id).must(200)


@pytest.mark.parametrize("kind", ["status", "reset", "hang"])
def test_without_smu_a_flagged_reserve_is_503(system: TestSystem, kind: str) -> None:
    """The failed reserve holds nothing, and the buyer can reserve again later."""
    buyer, seat = system.person(flagged=True), system.seat()
    with system.smu.fault(kind, "/SendOTP", **({"ms": 20_000} if kind == "hang" else {})):
        answer = buyer.reserve(seat)
    assert outcomes([answer]) == {"503 SERVICE_UNAVAILABLE": 1}
    assert "Retry-After" in answer.headers
    assert system.seat_status(seat) == "AVAILABLE"
    assert [row["status"] for row in list_orders(system, buyer)] in ([], ["FAILED"])
    system.wait_until("another reserve, once SMU answers a probe", lambda: buyer.reserve(seat).status == 200)


def list_orders(system: TestSystem, buyer: Person) -> list[dict[str, str]]:
    """Read the orders of a buyer."""
    return system.rows("orders_db", "SELECT status FROM orders WHERE user_id = %s", buyer.user_id)


def test_without_smu_unflagged_users_buy_as_usual(system: TestSystem) -> None:
    with system.smu.fault("reset"):
        system.buy_seat(system.person())


def read_attempts_left(buyer: Person, code: str, order_id: str) -> int | None:
    """Enter a wrong code. Returns how many attempts are left, or None without a verdict."""
    details: dict[str, int] = buyer.verify_otp(code, order_id).envelope.get("details", {})
    return details.get("attempts_left")


@pytest.mark.parametrize("kind", ["status", "reset"])
def test_a_code_without_a_verdict_costs_no_attempt(system: TestSystem, kind: str) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    with system.smu.fault(kind, "/VerifyOTP"):
        assert outcomes([buyer.verify_otp(change_code(system.code(buyer)), order_id)]) == {"503 SERVICE_UNAVAILABLE": 1}
    attempts_left = partial(read_attempts_left, buyer, change_code(system.code(buyer)), order_id)
    assert system.wait_until("a verdict, once SMU answers a probe", attempts_left) == 2
    buyer.verify_otp(system.code(buyer), order_id).must(200)


def test_a_code_verifies_only_the_order_of_its_owner(system: TestSystem) -> None:
    buyer, _, order_id = hold_as_flagged(system)
    stranger, nothing = system.person(flagged=True), "00000000-0000-4000-8000-000000000000"
    answers = [stranger.verify_otp(system.code(buyer), order_id), stranger.resend(order_id=order_id)]
    assert outcomes(answers) == {"403 FORBIDDEN": 2}
    answers = [stranger.verify_otp("123456"), stranger.resend(order_id=nothing), stranger.verify_otp("123456", nothing)]
    assert outcomes(answers) == {"404 ORDER_NOT_FOUND": 3}
