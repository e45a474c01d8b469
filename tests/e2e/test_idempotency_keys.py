"""`Idempotency-Key` on reserve, top-up, initiate and verify: one key, one effect, one answer (issue 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

from harness.api_client import ApiResponse
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

SOON = 10.0


@dataclass
class Operation:
    """One keyed call: `ask(key)` repeats it, `other(key)` sends another body, `effects()` counts what it did."""

    ask: Callable[[str], ApiResponse]
    other: Callable[[str], ApiResponse]
    effects: Callable[[], int]
    names: str  # the field of the answer that says what was made
    somebody_else: Callable[[str], ApiResponse]


def reserve(system: TestSystem) -> Operation:
    person, seat, stranger = system.person("5000.00"), system.seat(), system.person()
    sql = "SELECT 1 FROM orders WHERE user_id = %s"
    return Operation(
        ask=lambda key: person.reserve(seat, **{"Idempotency-Key": key}),
        other=lambda key: person.reserve(system.seat(), **{"Idempotency-Key": key}),
        effects=lambda: len(system.rows("orders_db", sql, person.user_id)),
        names="order_id",
        somebody_else=lambda key: stranger.reserve(system.seat(), **{"Idempotency-Key": key}),
    )


def top_up(system: TestSystem) -> Operation:
    person, stranger = system.person(), system.person()
    before = len(system.stripe.calls("/v1/payment_intents"))
    return Operation(
        ask=lambda key: person.top_up(25, **{"Idempotency-Key": key}),
        other=lambda key: person.top_up(26, **{"Idempotency-Key": key}),
        effects=lambda: len(system.stripe.calls("/v1/payment_intents")) - before,
        names="payment_intent_id",
        somebody_else=lambda key: stranger.top_up(25, **{"Idempotency-Key": key}),
    )


def initiate(system: TestSystem) -> Operation:
    seller, buyer = system.person(), system.person()
    seat, another = system.insert_tickets(seller, 2)

    def start(who: Person, seat_id: str, key: str) -> ApiResponse:
        body = {
            "seat_id": seat_id,
            "seller_user_id": seller.user_id,
            "buyer_user_id": buyer.user_id,
            "credits_amount": 5,
        }
        return who.post("/api/transfer/initiate", body, **{"Idempotency-Key": key})

    sql = "SELECT 1 FROM transfers WHERE seat_id = %s"
    return Operation(
        ask=lambda key: start(seller, seat, key),
        other=lambda key: start(seller, another, key),
        effects=lambda: len(system.rows("orders_db", sql, seat)),
        names="transfer_id",
        somebody_else=lambda key: start(buyer, another, key),
    )


def verify(system: TestSystem) -> Operation:
    owner, staff, colleague = system.person(), system.staff(), system.staff()
    seat, another = system.insert_tickets(owner, 2)
    qr, other_qr = (owner.qr(one).must()["qr_payload"] for one in (seat, another))
    sql = "SELECT 1 FROM entry_logs WHERE seat_id = %s AND result = 'SUCCESS'"
    return Operation(
        ask=lambda key: staff.scan(qr, "HALL-B", **{"Idempotency-Key": key}),
        other=lambda key: staff.scan(other_qr, "HALL-B", **{"Idempotency-Key": key}),
        effects=lambda: len(system.rows("seats_db", sql, seat)),
        names="result",
        somebody_else=lambda key: colleague.scan(other_qr, "HALL-B", **{"Idempotency-Key": key}),
    )


OPERATIONS = [reserve, top_up, initiate, verify]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_key_and_body_gets_the_first_answer_again(
    system: TestSystem, operation: Callable[[TestSystem], Operation]
) -> None:
    it, key = operation(system), str(uuid4())
    first, again = it.ask(key), it.ask(key)
    assert first.status in (200, 201)
    assert (again.status, again.data) == (first.status, first.data)
    assert it.effects() == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_key_with_another_body_is_422(
    system: TestSystem, operation: Callable[[TestSystem], Operation]
) -> None:
    it, key = operation(system), str(uuid4())
    it.ask(key).must()
    assert outcomes([it.other(key)]) == {"422 IDEMPOTENCY_KEY_REUSED": 1}
    assert it.effects() == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_ten_at_once_under_one_key_have_one_effect(
    system: TestSystem, operation: Callable[[TestSystem], Operation]
) -> None:
    it, key = operation(system), str(uuid4())
    answers = run_concurrently([lambda: it.ask(key)] * 10)
    seen = outcomes(answers)
    assert seen.keys() <= {"200", "201", "409 REQUEST_IN_PROGRESS"}, seen
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status == 409)
    done = {a.data[it.names] for a in answers if a.status < 300}
    assert done == {it.ask(key).must()[it.names]}
    assert it.effects() == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_key_is_its_callers_own(system: TestSystem, operation: Callable[[TestSystem], Operation]) -> None:
    it, key = operation(system), str(uuid4())
    first = it.ask(key).must()
    other = it.somebody_else(key)
    assert other.status < 300, other
    assert other.data != first


def test_a_final_refusal_is_kept_and_an_unknown_outcome_is_not(system: TestSystem) -> None:
    person, seat = system.person(), system.seat()
    holder, key = system.person(), {"Idempotency-Key": str(uuid4())}
    _, order_id = system.hold_seat(holder, seat)
    assert outcomes([person.reserve(seat, **key)]) == {"409 SEAT_UNAVAILABLE": 1}
    with system.clock("seats_db", 400):
        system.wait_until("the hold is over", lambda: system.seat_status(seat) == "AVAILABLE")
    assert outcomes([person.reserve(seat, **key)]) == {"409 SEAT_UNAVAILABLE": 1}
    assert person.reserve(seat).status == 200
    flagged, key = system.person(flagged=True), {"Idempotency-Key": str(uuid4())}
    wanted = system.seat()
    with system.smu.fault("status", "/SendOTP", status=500):
        assert outcomes([flagged.reserve(wanted, **key)]) == {"503 SERVICE_UNAVAILABLE": 1}
    assert system.order_status(order_id) in ("PENDING", "FAILED")
    assert flagged.reserve(wanted, **key).status == 200, "a 503 is not kept: the same key may be tried again"


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_the_wrong_length_is_a_validation_error(system: TestSystem, key: str) -> None:
    answer = system.person().reserve(system.seat(), **{"Idempotency-Key": key})
    assert outcomes([answer]) == {"400 VALIDATION_ERROR": 1}
