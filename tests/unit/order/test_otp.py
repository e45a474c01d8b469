"""Codes of orders: at most three attempts, also in parallel. Three wrong codes fail the order."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import pytest

from tests.support.concurrency import run_concurrently
from tests.support.service_settings import new_id, new_key
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit


@pytest.mark.claim("smu/stores-verification-sid", "schema/orders.verification_sid")
def test_attempt_returns_the_sid(service: OrderService) -> None:
    taken = service.take(f"orders/{service.add_flagged()}").data
    assert (taken["attempt"], taken["verified"], taken["verification_sid"]) == (1, False, "VE1")


def test_order_answer_hides_the_sid(service: OrderService) -> None:
    assert b"VE1" not in service.call("GET", f"/orders/{service.add_flagged()}").raw


def test_three_of_twenty_concurrent_attempts_succeed(service: OrderService) -> None:
    order_id = service.add_flagged()
    replies = run_concurrently([lambda: service.take(f"orders/{order_id}")] * 20)
    assert sorted(reply.data["attempt"] for reply in replies if reply.status == 200) == [1, 2, 3]
    assert [reply.code for reply in replies if reply.status != 200] == ["OTP_MAX_RETRIES"] * 17
    assert service.order(order_id)["status"] == "PENDING"


def test_repeated_take_is_one_attempt(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    replies = run_concurrently([lambda: service.take(f"orders/{order_id}", key)] * 5)
    assert [reply.data["attempt"] for reply in replies] == [1] * 5
    assert service.order(order_id)["otp_attempts"] == 1


@pytest.mark.claim("otp/three-tries-for-purchase")
def test_the_third_wrong_code_fails_the_order(service: OrderService) -> None:
    path = f"orders/{service.add_flagged()}"
    replies = [service.try_code(path, "wrong").data for _ in range(3)]
    assert [reply["attempts_left"] for reply in replies] == [2, 1, 0]
    assert [reply["failed"] for reply in replies] == [False, False, True]
    assert service.take(path).code == "OTP_MAX_RETRIES"


def test_a_right_code_verifies_the_order(service: OrderService) -> None:
    order_id = service.add_flagged()
    assert service.try_code(f"orders/{order_id}", "approved").data["verified"] is True
    assert service.order(order_id)["otp_verified_at"] is not None
    taken = service.take(f"orders/{order_id}").data
    assert (taken["verified"], taken["attempt"]) == (True, None)


def test_third_attempt_in_flight_does_not_fail_the_order(service: OrderService) -> None:
    order_id, in_flight = service.add_flagged(), new_key("take")
    path = f"orders/{order_id}"
    service.take(path, in_flight)
    service.try_code(path, "wrong")
    assert service.try_code(path, "wrong").data == {
        "verified": False,
        "attempts_left": 0,
        "failed": False,
        "status": "PENDING",
    }
    assert service.end(path, in_flight, "approved").data["verified"] is True


def test_wrong_code_after_the_right_one_changes_nothing(service: OrderService) -> None:
    order_id, right, late = service.add_flagged(), new_key("take"), new_key("take")
    path = f"orders/{order_id}"
    service.try_code(path, "wrong")
    service.take(path, right)
    service.take(path, late)
    service.end(path, right, "approved")
    before = service.order(order_id)
    assert service.end(path, late, "wrong").data["failed"] is False
    assert service.order(order_id) == before
    assert before["status"] == "PENDING"


def test_wrong_codes_never_fail_a_verified_order(service: OrderService) -> None:
    order_id, keys = service.add_flagged(), [new_key("take") for _ in range(3)]
    path = f"orders/{order_id}"
    for key in keys:
        service.take(path, key)
    service.end(path, keys[0], "wrong")
    service.end(path, keys[1], "wrong")
    with service.db.transaction() as tx:  # simulates a right code that another path recorded
        tx.run("UPDATE orders SET otp_verified_at = app_now() WHERE order_id = %(id)s", id=UUID(order_id))
    service.end(path, keys[2], "wrong")
    assert service.order(order_id)["status"] == "PENDING"


def test_wrong_codes_never_fail_a_confirmed_order(service: OrderService) -> None:
    order_id, keys = service.add_flagged(), [new_key("take") for _ in range(3)]
    for key in keys:
        service.take(f"orders/{order_id}", key)
    service.confirm(order_id)
    for key in keys:
        service.end(f"orders/{order_id}", key, "wrong")
    assert service.order(order_id)["status"] == "CONFIRMED"


def test_right_code_for_a_failed_order_is_refused(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    service.take(f"orders/{order_id}", key)
    service.fail(order_id)
    assert service.end(f"orders/{order_id}", key, "approved").code == "ORDER_FAILED"
    assert service.order(order_id)["otp_verified_at"] is None


@pytest.mark.parametrize("outcome", ["unknown", "expired"])
def test_attempt_without_a_verdict_is_given_back_once(service: OrderService, outcome: str) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    path = f"orders/{order_id}"
    service.try_code(path, "wrong")
    service.take(path, key)
    replies = run_concurrently([lambda: service.end(path, key, outcome)] * 4)
    assert {reply.data["attempts_left"] for reply in replies} == {2}
    assert service.order(order_id)["otp_attempts"] == 1


def test_attempt_given_back_first_cannot_be_taken(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    assert service.end(f"orders/{order_id}", key, "unknown").status == 200
    assert service.take(f"orders/{order_id}", key).code == "STEP_VOIDED"
    assert service.order(order_id)["otp_attempts"] == 0


def test_judged_attempt_cannot_be_given_back(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    path = f"orders/{order_id}"
    service.take(path, key)
    assert service.end(path, key, "wrong").data["attempts_left"] == 2
    assert service.end(path, key, "unknown").data["attempts_left"] == 2
    assert service.end(path, key, "wrong").data["attempts_left"] == 2
    assert service.order(order_id)["otp_attempts"] == 1


def test_verdict_on_a_returned_attempt_is_refused(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    path = f"orders/{order_id}"
    service.take(path, key)
    service.end(path, key, "unknown")
    assert service.end(path, key, "approved").code == "STEP_VOIDED"
    assert service.order(order_id)["otp_verified_at"] is None


def test_only_the_first_outcome_counts(service: OrderService) -> None:
    order_id, key = service.add_flagged(), new_key("take")
    path = f"orders/{order_id}"
    service.take(path, key)
    outcomes = ["wrong", "unknown", "approved", "wrong"] * 3
    run_concurrently([partial(service.end, path, key, outcome) for outcome in outcomes])
    with service.db.transaction() as tx:
        row = tx.only("SELECT * FROM orders WHERE order_id = %(id)s", id=UUID(order_id))
    counted = (row["otp_attempts"], row["otp_failures"], row["otp_verified_at"] is not None)
    assert counted in [(1, 1, False), (0, 0, False), (1, 0, True)]


def test_outcome_needs_an_attempt_of_this_order(service: OrderService) -> None:
    order_id, other = service.add_flagged(), service.add_flagged()
    key = new_key("take")
    service.take(f"orders/{order_id}", key)
    assert service.end(f"orders/{other}", key, "approved").code == "VALIDATION_ERROR"
    assert service.end(f"orders/{other}", new_key("take"), "approved").code == "VALIDATION_ERROR"
    assert service.order(other)["otp_verified_at"] is None


def test_impossible_attempt_is_refused_with_the_reason(service: OrderService) -> None:
    assert service.take(f"orders/{new_id()}").code == "ORDER_NOT_FOUND"
    assert service.take(f"orders/{service.add_confirmed(otp_required=True)}").code == "ORDER_ALREADY_CONFIRMED"
    assert service.take(f"orders/{service.add_pending(otp_required=True)}").code == "OTP_EXPIRED"
    assert service.take(f"orders/{service.add_pending()}").data["verified"] is True
    failed = service.add_flagged()
    service.fail(failed)
    assert service.take(f"orders/{failed}").code == "ORDER_FAILED"


def test_resent_code_replaces_the_sid_until_verified(service: OrderService) -> None:
    order_id = service.add_flagged()
    service.change(order_id, verification_sid="VE2")
    assert service.take(f"orders/{order_id}").data["verification_sid"] == "VE2"
    service.try_code(f"orders/{order_id}", "approved")
    assert service.change(order_id, verification_sid="VE3").status == 200
    with service.db.transaction() as tx:
        row = tx.only("SELECT verification_sid FROM orders WHERE order_id = %(id)s", id=UUID(order_id))
    assert row["verification_sid"] is None


def test_ended_order_stores_no_sid(service: OrderService) -> None:
    assert service.change(service.add_confirmed(), verification_sid="VE2").code == "ORDER_ALREADY_CONFIRMED"
    failed = service.add_pending()
    service.fail(failed)
    assert service.change(failed, verification_sid="VE2").code == "ORDER_FAILED"
    assert service.change(new_id(), verification_sid="VE2").code == "ORDER_NOT_FOUND"


@pytest.mark.parametrize("outcome", ["right", "", None, 3])
def test_invalid_outcome_is_refused(service: OrderService, outcome: str) -> None:
    assert service.end(f"orders/{service.add_flagged()}", new_key(), outcome).code == "VALIDATION_ERROR"
