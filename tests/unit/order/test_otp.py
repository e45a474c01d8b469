"""Codes of orders: three attempts, whoever asks and however fast; only three wrong ones fail an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

import pytest

from services.chassis.settings import DatabaseSettings
from tests.support.concurrency import run_concurrently
from tests.unit.order.order_service import OrderService, a_key, an_id

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


@pytest.mark.claim("smu/stores-verification-sid", "schema/orders.verification_sid")
def test_an_attempt_comes_with_the_sid_to_ask_about(service: OrderService) -> None:
    taken = service.take(f"orders/{service.flagged()}").data
    assert (taken["attempt"], taken["verified"], taken["verification_sid"]) == (1, False, "VE1")


def test_no_view_of_an_order_shows_its_sid(service: OrderService) -> None:
    assert b"VE1" not in service.ask("GET", f"/orders/{service.flagged()}").raw


def test_twenty_attempts_at_once_get_exactly_three(service: OrderService) -> None:
    order_id = service.flagged()
    replies = run_concurrently([lambda: service.take(f"orders/{order_id}")] * 20)
    assert sorted(reply.data["attempt"] for reply in replies if reply.status == 200) == [1, 2, 3]
    assert [reply.code for reply in replies if reply.status != 200] == ["OTP_MAX_RETRIES"] * 17
    assert service.order(order_id)["status"] == "PENDING"


def test_the_same_attempt_asked_again_is_one_attempt(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    replies = run_concurrently([lambda: service.take(f"orders/{order_id}", key)] * 5)
    assert [reply.data["attempt"] for reply in replies] == [1] * 5
    assert service.order(order_id)["otp_attempts"] == 1


@pytest.mark.claim("otp/three-tries-for-purchase")
def test_the_third_wrong_code_fails_the_order(service: OrderService) -> None:
    of = f"orders/{service.flagged()}"
    replies = [service.try_code(of, "wrong").data for _ in range(3)]
    assert [reply["attempts_left"] for reply in replies] == [2, 1, 0]
    assert [reply["failed"] for reply in replies] == [False, False, True]
    assert service.take(of).code == "OTP_MAX_RETRIES"


def test_a_right_code_verifies_the_order(service: OrderService) -> None:
    order_id = service.flagged()
    assert service.try_code(f"orders/{order_id}", "approved").data["verified"] is True
    assert service.order(order_id)["otp_verified_at"] is not None
    taken = service.take(f"orders/{order_id}").data
    assert (taken["verified"], taken["attempt"]) == (True, None)


def test_two_wrong_codes_and_a_third_in_flight_do_not_fail_the_order(service: OrderService) -> None:
    order_id, in_flight = service.flagged(), a_key("take")
    of = f"orders/{order_id}"
    service.take(of, in_flight)
    service.try_code(of, "wrong")
    assert service.try_code(of, "wrong").data == {
        "verified": False,
        "attempts_left": 0,
        "failed": False,
        "status": "PENDING",
    }
    assert service.end(of, in_flight, "approved").data["verified"] is True


def test_a_third_wrong_code_after_the_right_one_changes_nothing(service: OrderService) -> None:
    order_id, right, late = service.flagged(), a_key("take"), a_key("take")
    of = f"orders/{order_id}"
    service.try_code(of, "wrong")
    service.take(of, right)
    service.take(of, late)
    service.end(of, right, "approved")
    before = service.order(order_id)
    assert service.end(of, late, "wrong").data["failed"] is False
    assert service.order(order_id) == before
    assert before["status"] == "PENDING"


def test_wrong_codes_never_fail_an_order_that_is_verified(service: OrderService) -> None:
    order_id, keys = service.flagged(), [a_key("take") for _ in range(3)]
    of = f"orders/{order_id}"
    for key in keys:
        service.take(of, key)
    service.end(of, keys[0], "wrong")
    service.end(of, keys[1], "wrong")
    with service.db.transaction() as tx:  # as if the right code had been recorded by another way
        tx.run("UPDATE orders SET otp_verified_at = app_now() WHERE order_id = %(id)s", id=UUID(order_id))
    service.end(of, keys[2], "wrong")
    assert service.order(order_id)["status"] == "PENDING"


def test_wrong_codes_never_fail_a_sale(service: OrderService) -> None:
    order_id, keys = service.flagged(), [a_key("take") for _ in range(3)]
    for key in keys:
        service.take(f"orders/{order_id}", key)
    service.confirm(order_id)
    for key in keys:
        service.end(f"orders/{order_id}", key, "wrong")
    assert service.order(order_id)["status"] == "CONFIRMED"


def test_a_right_code_after_the_order_failed_is_refused(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    service.take(f"orders/{order_id}", key)
    service.fail(order_id)
    assert service.end(f"orders/{order_id}", key, "approved").code == "ORDER_FAILED"
    assert service.order(order_id)["otp_verified_at"] is None


@pytest.mark.parametrize("outcome", ["unknown", "expired"])
def test_an_attempt_that_nobody_could_judge_is_given_back_once(service: OrderService, outcome: str) -> None:
    order_id, key = service.flagged(), a_key("take")
    of = f"orders/{order_id}"
    service.try_code(of, "wrong")
    service.take(of, key)
    replies = run_concurrently([lambda: service.end(of, key, outcome)] * 4)
    assert {reply.data["attempts_left"] for reply in replies} == {2}
    assert service.order(order_id)["otp_attempts"] == 1


def test_an_attempt_given_back_before_it_was_taken_can_no_longer_be_taken(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    assert service.end(f"orders/{order_id}", key, "unknown").status == 200
    assert service.take(f"orders/{order_id}", key).code == "STEP_VOIDED"
    assert service.order(order_id)["otp_attempts"] == 0


def test_giving_back_what_was_judged_buys_no_guess(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    of = f"orders/{order_id}"
    service.take(of, key)
    assert service.end(of, key, "wrong").data["attempts_left"] == 2
    assert service.end(of, key, "unknown").data["attempts_left"] == 2
    assert service.end(of, key, "wrong").data["attempts_left"] == 2
    assert service.order(order_id)["otp_attempts"] == 1


def test_judging_what_was_given_back_is_refused(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    of = f"orders/{order_id}"
    service.take(of, key)
    service.end(of, key, "unknown")
    assert service.end(of, key, "approved").code == "STEP_VOIDED"
    assert service.order(order_id)["otp_verified_at"] is None


def test_the_first_ending_of_an_attempt_stands(service: OrderService) -> None:
    order_id, key = service.flagged(), a_key("take")
    of = f"orders/{order_id}"
    service.take(of, key)
    outcomes = ["wrong", "unknown", "approved", "wrong"] * 3
    run_concurrently([partial(service.end, of, key, outcome) for outcome in outcomes])
    with service.db.transaction() as tx:
        row = tx.only("SELECT * FROM orders WHERE order_id = %(id)s", id=UUID(order_id))
    judged = (row["otp_attempts"], row["otp_failures"], row["otp_verified_at"] is not None)
    assert judged in [(1, 1, False), (0, 0, False), (1, 0, True)]


def test_an_ending_needs_an_attempt_of_this_very_order(service: OrderService) -> None:
    order_id, other = service.flagged(), service.flagged()
    key = a_key("take")
    service.take(f"orders/{order_id}", key)
    assert service.end(f"orders/{other}", key, "approved").code == "VALIDATION_ERROR"
    assert service.end(f"orders/{other}", a_key("take"), "approved").code == "VALIDATION_ERROR"
    assert service.order(other)["otp_verified_at"] is None


def test_what_cannot_be_verified_says_why(service: OrderService) -> None:
    assert service.take(f"orders/{an_id()}").code == "ORDER_NOT_FOUND"
    assert service.take(f"orders/{service.confirmed(otp_required=True)}").code == "ORDER_ALREADY_CONFIRMED"
    assert service.take(f"orders/{service.pending(otp_required=True)}").code == "OTP_EXPIRED"
    assert service.take(f"orders/{service.pending()}").data["verified"] is True
    failed = service.flagged()
    service.fail(failed)
    assert service.take(f"orders/{failed}").code == "ORDER_FAILED"


def test_a_code_sent_again_replaces_the_sid_until_verified(service: OrderService) -> None:
    order_id = service.flagged()
    service.change(order_id, verification_sid="VE2")
    assert service.take(f"orders/{order_id}").data["verification_sid"] == "VE2"
    service.try_code(f"orders/{order_id}", "approved")
    assert service.change(order_id, verification_sid="VE3").status == 200
    with service.db.transaction() as tx:
        row = tx.only("SELECT verification_sid FROM orders WHERE order_id = %(id)s", id=UUID(order_id))
    assert row["verification_sid"] is None


def test_no_sid_is_stored_on_an_order_that_has_ended(service: OrderService) -> None:
    assert service.change(service.confirmed(), verification_sid="VE2").code == "ORDER_ALREADY_CONFIRMED"
    failed = service.pending()
    service.fail(failed)
    assert service.change(failed, verification_sid="VE2").code == "ORDER_FAILED"
    assert service.change(an_id(), verification_sid="VE2").code == "ORDER_NOT_FOUND"


@pytest.mark.parametrize("outcome", ["right", "", None, 3])
def test_an_outcome_that_is_none_is_refused(service: OrderService, outcome: str) -> None:
    assert service.end(f"orders/{service.flagged()}", a_key(), outcome).code == "VALIDATION_ERROR"
